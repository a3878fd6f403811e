//! Who else speaks for a VIP, as documents show it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a VIP is probed for before it is taken (RFC 5227).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProbeMode {
    /// Three probes within 150 ms: the default.
    #[default]
    Quick,
    /// Three probes with the times of RFC 5227: four to seven seconds.
    Rfc5227,
    /// Not at all.
    Off,
}

/// What is done about a real server that answers for a VIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ArpLeak {
    /// It is shown and told: the default.
    #[default]
    Report,
    /// It also gets no new connections until it has been quiet, unless it is the last one of its service.
    Quarantine,
}

/// Whether a VIP is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VipState {
    /// It is answered for.
    #[default]
    Held,
    /// It is being probed for.
    Probing,
    /// Another machine has it: it is not answered for until it is free, or taken by command.
    Contested,
}

impl VipState {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn is_held(&self) -> bool {
        *self == Self::Held
    }

    /// Its name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Probing => "probing",
            Self::Contested => "contested",
        }
    }
}

/// A machine that speaks for a VIP beside the director.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct VipConflict {
    /// The VIP.
    #[schema(value_type = String, example = "10.10.24.88")]
    pub vip: IpAddr,
    /// The port that it was heard on.
    pub port: String,
    /// The MAC that it gives.
    pub mac: String,
    /// The real server that has this MAC, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.10.24.21")]
    pub real_server: Option<IpAddr>,
    /// Since when.
    pub since: String,
    /// When it was heard last.
    pub last: String,
    /// How often it was heard, once a second at most.
    pub claims: u64,
}

/// A VIP as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Vip {
    /// The VIP.
    #[schema(value_type = String, example = "10.10.24.88")]
    pub address: IpAddr,
    /// Whether it is ours.
    pub state: VipState,
    /// Who else speaks for it.
    pub conflicts: Vec<VipConflict>,
}
