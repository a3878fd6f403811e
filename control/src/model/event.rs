//! What happened to the director and to what it looks after.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::HealthState;

/// Something that happened, with whom it happened to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// The director began; what happened before is not kept.
    Started,
    /// Health checks say something else of a real server than before.
    HealthChanged {
        /// The virtual service's id.
        service: String,
        /// RIP and rport.
        #[schema(value_type = String, example = "10.10.24.21:80")]
        real_server: SocketAddr,
        /// What they said before.
        from: HealthState,
        /// What they say now.
        to: HealthState,
    },
    /// Too few real servers of a service are healthy.
    QuorumLost {
        /// The virtual service's id.
        service: String,
    },
    /// Enough are healthy again.
    QuorumBack {
        /// The virtual service's id.
        service: String,
    },
    /// Clients' packets make it likely that a real server failed: it is checked at once.
    HealthHint {
        /// The virtual service's id.
        service: String,
        /// RIP and rport.
        #[schema(value_type = String, example = "10.10.24.21:80")]
        real_server: SocketAddr,
    },
    /// A port has a link again.
    LinkUp {
        /// The port's name.
        port: String,
    },
    /// A port lost its link.
    LinkDown {
        /// The port's name.
        port: String,
    },
    /// Somebody else answers for an address of ours.
    AddressConflict {
        /// The address, most likely a VIP.
        #[schema(value_type = String, example = "10.10.24.88")]
        address: IpAddr,
        /// The name of the port that the answer came in by.
        port: String,
        /// The MAC that answered.
        mac: String,
        /// The real server that the MAC belongs to, as far as it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, nullable = false)]
        real_server: Option<IpAddr>,
    },
    /// Nobody else answers for it any more.
    AddressConflictOver {
        /// The address.
        #[schema(value_type = String, example = "10.10.24.88")]
        address: IpAddr,
        /// The name of the port.
        port: String,
    },
    /// A real server gets no new connections because it answers for a VIP.
    QuarantineBegan {
        /// The virtual service's id.
        service: String,
        /// RIP and rport.
        #[schema(value_type = String, example = "10.10.24.21:80")]
        real_server: SocketAddr,
    },
    /// It gets new ones again.
    QuarantineEnded {
        /// The virtual service's id.
        service: String,
        /// RIP and rport.
        #[schema(value_type = String, example = "10.10.24.21:80")]
        real_server: SocketAddr,
    },
    /// A real server is being drained.
    DrainBegan {
        /// The virtual service's id.
        service: String,
        /// RIP and rport.
        #[schema(value_type = String, example = "10.10.24.21:80")]
        real_server: SocketAddr,
    },
    /// A drain has ended.
    DrainEnded {
        /// The virtual service's id.
        service: String,
        /// RIP and rport.
        #[schema(value_type = String, example = "10.10.24.21:80")]
        real_server: SocketAddr,
    },
    /// The configuration changed.
    ConfigurationChanged {
        /// Its new revision.
        revision: u64,
    },
    /// A worker has more to do than it can.
    Overload {
        /// The worker's number.
        worker: u32,
    },
    /// It has not any more.
    OverloadOver {
        /// The worker's number.
        worker: u32,
    },
}

impl What {
    /// The names of all kinds, as documents have them.
    pub const KINDS: &[&str] = &[
        "started",
        "health-changed",
        "quorum-lost",
        "quorum-back",
        "health-hint",
        "link-up",
        "link-down",
        "address-conflict",
        "address-conflict-over",
        "quarantine-began",
        "quarantine-ended",
        "drain-began",
        "drain-ended",
        "configuration-changed",
        "overload",
        "overload-over",
    ];

    /// The name of its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::HealthChanged { .. } => "health-changed",
            Self::QuorumLost { .. } => "quorum-lost",
            Self::QuorumBack { .. } => "quorum-back",
            Self::HealthHint { .. } => "health-hint",
            Self::LinkUp { .. } => "link-up",
            Self::LinkDown { .. } => "link-down",
            Self::AddressConflict { .. } => "address-conflict",
            Self::AddressConflictOver { .. } => "address-conflict-over",
            Self::QuarantineBegan { .. } => "quarantine-began",
            Self::QuarantineEnded { .. } => "quarantine-ended",
            Self::DrainBegan { .. } => "drain-began",
            Self::DrainEnded { .. } => "drain-ended",
            Self::ConfigurationChanged { .. } => "configuration-changed",
            Self::Overload { .. } => "overload",
            Self::OverloadOver { .. } => "overload-over",
        }
    }

    /// Whether somebody should look.
    pub const fn is_bad(&self) -> bool {
        match self {
            Self::HealthChanged { to, .. } => matches!(to, HealthState::Down),
            _ => matches!(
                self,
                Self::QuorumLost { .. }
                    | Self::HealthHint { .. }
                    | Self::LinkDown { .. }
                    | Self::AddressConflict { .. }
                    | Self::QuarantineBegan { .. }
                    | Self::Overload { .. }
            ),
        }
    }

    /// The virtual service that it is about, if it is about one.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::HealthChanged { service, .. }
            | Self::QuorumLost { service }
            | Self::QuorumBack { service }
            | Self::HealthHint { service, .. }
            | Self::QuarantineBegan { service, .. }
            | Self::QuarantineEnded { service, .. }
            | Self::DrainBegan { service, .. }
            | Self::DrainEnded { service, .. } => Some(service),
            _ => None,
        }
    }
}

/// Whom it happened to, as a line of text names it.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("director"),
            Self::HealthChanged { service, real_server, .. }
            | Self::HealthHint { service, real_server }
            | Self::QuarantineBegan { service, real_server }
            | Self::QuarantineEnded { service, real_server }
            | Self::DrainBegan { service, real_server }
            | Self::DrainEnded { service, real_server } => write!(f, "{service} -> {real_server}"),
            Self::QuorumLost { service } | Self::QuorumBack { service } => f.write_str(service),
            Self::LinkUp { port } | Self::LinkDown { port } => write!(f, "port {port}"),
            Self::AddressConflict { address, port, mac, .. } => write!(f, "{address} on port {port} with MAC {mac}"),
            Self::AddressConflictOver { address, port } => write!(f, "{address} on port {port}"),
            Self::ConfigurationChanged { revision } => write!(f, "revision {revision}"),
            Self::Overload { worker } | Self::OverloadOver { worker } => write!(f, "worker {worker}"),
        }
    }
}

/// Something that happened, when, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by one with each event, and from one run of the director to the next; below 2^53.
    pub id: u64,
    /// When, as RFC 3339 writes it.
    #[schema(example = "2026-11-22T02:16:34.250Z")]
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// Why, in words.
    pub reason: String,
}

/// Events that are not kept any more, or not by this run of the director.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The id that was asked for.
    pub after: u64,
    /// The last one that is not kept; 0 when nobody can say.
    pub until: u64,
}

/// A listing of events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The id of the newest one that there is: `since` of the next request.
    pub latest: u64,
    /// What is missing between `since` and the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub gap: Option<Gap>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_names_the_kind_that_the_list_of_kinds_has() {
        let real_server = "10.10.24.21:80".parse().unwrap();
        let (service, port) = ("tcp:10.10.24.88:80".to_owned(), "lan".to_owned());
        let address = IpAddr::from([10, 10, 24, 88]);
        let all = [
            What::Started,
            What::HealthChanged { service: service.clone(), real_server, from: HealthState::Up, to: HealthState::Down },
            What::QuorumLost { service: service.clone() },
            What::QuorumBack { service: service.clone() },
            What::HealthHint { service: service.clone(), real_server },
            What::LinkUp { port: port.clone() },
            What::LinkDown { port: port.clone() },
            What::AddressConflict { address, port: port.clone(), mac: "02:00:00:00:00:15".to_owned(), real_server: None },
            What::AddressConflictOver { address, port },
            What::QuarantineBegan { service: service.clone(), real_server },
            What::QuarantineEnded { service: service.clone(), real_server },
            What::DrainBegan { service: service.clone(), real_server },
            What::DrainEnded { service, real_server },
            What::ConfigurationChanged { revision: 7 },
            What::Overload { worker: 0 },
            What::OverloadOver { worker: 0 },
        ];
        assert_eq!(all.len(), What::KINDS.len());
        for (what, kind) in all.into_iter().zip(What::KINDS) {
            let event = Event { id: 1, time: "2026-11-22T02:16:34.250Z".to_owned(), what, reason: "why".to_owned() };
            let document = serde_json::to_value(&event).unwrap();
            assert_eq!((document["kind"].as_str().unwrap(), event.what.kind()), (*kind, *kind));
            assert_eq!(serde_json::from_value::<Event>(document).unwrap(), event);
        }
    }
}
