//! A virtual service as documents write it: with a VIP, or with a mark in the place of it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::health::HealthSpec;
use super::spec::{NoRealServer, Persistence, RealServerSpec, Scheduler, SchedulerFlag, ServiceSpec, ServiceTimeouts, is_false};
use super::{Protocol, ServiceKey};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6 (`ipvsadm -6`).
    Ipv6,
}

/// A virtual service as a user describes it: by protocol, address and port, or by mark.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceForm {
    /// The protocol; not of a service by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    protocol: Option<Protocol>,
    /// The VIP; not of a service by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, example = "10.10.24.88")]
    address: Option<IpAddr>,
    /// The vport, 1 to 65535; with persistence also 0, for every port that no other service of the VIP has. Not of a service by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    port: Option<u16>,
    /// The mark (`ipvsadm -f`), 1 to 4294967295, in place of protocol, address and port: for all packets that mark rules give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    mark: Option<u32>,
    /// With a mark: the family of its packets; `ipv4` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    family: Option<Family>,
    /// The scheduler; `wlc` when left out.
    #[serde(default)]
    scheduler: Scheduler,
    /// The scheduler's flags (`ipvsadm -b`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    flags: BTreeSet<SchedulerFlag>,
    /// Persistence (`ipvsadm -p`): a client's connections go where its first one went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    persistence: Option<Persistence>,
    /// One-packet scheduling (`ipvsadm -o`): UDP only.
    #[serde(default, skip_serializing_if = "is_false")]
    one_packet: bool,
    /// What a client is told whose connection no real server takes; `icmp` when left out.
    #[serde(default, skip_serializing_if = "NoRealServer::is_default")]
    no_real_server: NoRealServer,
    /// Timeouts of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeouts: Option<ServiceTimeouts>,
    /// How its real servers are checked, and what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<HealthSpec>,
    /// The real servers, in the order in which they were added.
    #[serde(default, rename = "real_servers", alias = "real_server")]
    real_servers: Vec<RealServerSpec>,
}

impl ServiceForm {
    fn key(&self) -> Result<ServiceKey, String> {
        match (self.mark, self.protocol, self.address, self.port) {
            (None, Some(Protocol::Mark), ..) => Err("protocol is 'mark': a service by mark has a field mark in its place".to_owned()),
            (None, Some(_), Some(_), Some(_)) if self.family.is_some() => {
                Err("family is for services by mark: the family of any other is its address's".to_owned())
            }
            (None, Some(protocol), Some(address), Some(port)) => Ok(ServiceKey { protocol, address, port }),
            (None, protocol, address, port) => {
                let given = [("protocol", protocol.is_some()), ("address", address.is_some()), ("port", port.is_some())];
                let missing: Vec<&str> = given.iter().filter(|(_, given)| !given).map(|(name, _)| *name).collect();
                Err(format!("missing: {}; a virtual service has protocol, address and port, or a mark", missing.join(", ")))
            }
            (Some(0), ..) => Err("mark is 0: allowed are 1 to 4294967295".to_owned()),
            (Some(mark), None, None, None) => Ok(ServiceKey::marked(mark, self.family == Some(Family::Ipv6))),
            (Some(mark), ..) => {
                Err(format!("a service by mark has no protocol, address or port of its own: those are of the rules that give mark {mark}"))
            }
        }
    }
}

impl TryFrom<ServiceForm> for ServiceSpec {
    type Error = String;

    fn try_from(form: ServiceForm) -> Result<Self, String> {
        let ServiceKey { protocol, address, port } = form.key()?;
        let ServiceForm { scheduler, flags, persistence, one_packet, no_real_server, timeouts, health, real_servers, .. } = form;
        Ok(Self { protocol, address, port, scheduler, flags, persistence, one_packet, no_real_server, timeouts, health, real_servers })
    }
}

impl From<ServiceSpec> for ServiceForm {
    fn from(spec: ServiceSpec) -> Self {
        let mark = spec.key().mark();
        let ServiceSpec {
            protocol,
            address,
            port,
            scheduler,
            flags,
            persistence,
            one_packet,
            no_real_server,
            timeouts,
            health,
            real_servers,
        } = spec;
        let plain = mark.is_none();
        Self {
            protocol: plain.then_some(protocol),
            address: plain.then_some(address),
            port: plain.then_some(port),
            mark,
            family: mark.map(|_| if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 }),
            scheduler,
            flags,
            persistence,
            one_packet,
            health,
            no_real_server,
            timeouts,
            real_servers,
        }
    }
}

impl PartialSchema for ServiceSpec {
    fn schema() -> RefOr<Schema> {
        ServiceForm::schema()
    }
}

impl ToSchema for ServiceSpec {
    fn name() -> Cow<'static, str> {
        "ServiceSpec".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ServiceForm::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ServiceSpec, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn service_has_an_address_or_a_mark() {
        for (json, id) in [
            (r#"{"protocol": "tcp", "address": "10.10.24.88", "port": 80}"#, "tcp:10.10.24.88:80"),
            (r#"{"mark": 7}"#, "mark:7"),
            (r#"{"mark": 4294967295, "family": "ipv4"}"#, "mark:4294967295"),
            (r#"{"mark": 7, "family": "ipv6"}"#, "mark6:7"),
        ] {
            let spec = read(json).unwrap();
            assert_eq!(spec.key().to_string(), id);
            assert_eq!(id.parse(), Ok(spec.key()));
            let again = serde_json::to_string(&spec).unwrap();
            assert_eq!(read(&again).unwrap(), spec, "{again}");
        }
        for (json, part) in [
            ("{}", "missing: protocol, address, port; a virtual service has"),
            (r#"{"protocol": "tcp", "address": "10.10.24.88"}"#, "missing: port;"),
            (r#"{"mark": 0}"#, "mark is 0: allowed are 1 to 4294967295"),
            (r#"{"mark": 7, "port": 80}"#, "no protocol, address or port of its own"),
            (r#"{"protocol": "mark", "address": "0.0.0.7", "port": 0}"#, "a service by mark has a field mark"),
            (r#"{"protocol": "tcp", "address": "10.10.24.88", "port": 80, "family": "ipv6"}"#, "family is for services by mark"),
            (r#"{"mark": 7, "family": "ipv5"}"#, "unknown variant `ipv5`"),
            (r#"{"mark": 7, "color": 1}"#, "unknown field `color`"),
        ] {
            let refused = read(json).unwrap_err();
            assert!(refused.contains(part), "{json}: {refused}");
        }
    }
}
