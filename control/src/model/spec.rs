//! Virtual services and real servers as users describe and change them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::form::ServiceForm;
use super::health::HealthSpec;
use super::{Protocol, ServiceKey, Tunnel};

/// A scheduler, by ipvsadm's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections: the default.
    #[default]
    Wlc,
    /// Locality-based least connections: connections to one destination address stay together; for services by mark.
    Lblc,
    /// The same with several real servers for a destination address that needs them.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing; takes the flags `sh-port` and `sh-fallback`.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue: an idle real server first, otherwise as `sed`.
    Nq,
    /// Weighted failover: the heaviest real server alone.
    Fo,
    /// Weighted overflow: the heaviest real server until it has more active connections than its weight; not for UDP.
    Ovf,
    /// Maglev hashing: consistent hashing of clients; takes the flags `mh-port` and `mh-fallback`.
    Mh,
    /// Power of two choices: the less busy of two drawn by weight.
    Twos,
}

impl Scheduler {
    /// The name that `-s` takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
        }
    }
}

/// A flag of a scheduler's, by ipvsadm's name (`-b`); in the order in which `ipvsadm -L` shows them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerFlag {
    /// `sh` tries other real servers when the client's own takes no new connections.
    ShFallback,
    /// `sh` looks at the client's port too.
    ShPort,
    /// `mh` tries other real servers when the client's own takes no new connections.
    MhFallback,
    /// `mh` looks at the client's port too.
    MhPort,
    /// The first flag of a scheduler that has no flags: kept and listed, and means nothing, as in IPVS.
    #[serde(rename = "flag-1")]
    Flag1,
    /// The second one.
    #[serde(rename = "flag-2")]
    Flag2,
    /// The third one.
    #[serde(rename = "flag-3")]
    Flag3,
}

impl SchedulerFlag {
    /// The name that `-b` takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShFallback => "sh-fallback",
            Self::ShPort => "sh-port",
            Self::MhFallback => "mh-fallback",
            Self::MhPort => "mh-port",
            Self::Flag1 => "flag-1",
            Self::Flag2 => "flag-2",
            Self::Flag3 => "flag-3",
        }
    }

    /// Whether `scheduler` takes it.
    pub const fn fits(self, scheduler: Scheduler) -> bool {
        match self {
            Self::ShFallback | Self::ShPort => matches!(scheduler, Scheduler::Sh),
            Self::MhFallback | Self::MhPort => matches!(scheduler, Scheduler::Mh),
            Self::Flag1 | Self::Flag2 | Self::Flag3 => !matches!(scheduler, Scheduler::Sh | Scheduler::Mh),
        }
    }
}

/// For how long, and of which clients, a service remembers the real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// Seconds that a client is remembered after its last new connection, 1 to 2678400 (31 days); 300 when left out.
    #[serde(default = "five_minutes")]
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub timeout: u32,
    /// Length of the prefix (`ipvsadm -M`) that makes clients one: 0 to 32, for IPv6 1 to 128; the whole address when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 128)]
    pub prefix: Option<u8>,
    /// In place of the prefix, for IPv4: a mask of any bits, also one with gaps (`ipvsadm -M 255.0.255.0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "255.0.255.0")]
    pub netmask: Option<Ipv4Addr>,
}

impl Default for Persistence {
    fn default() -> Self {
        Self { timeout: five_minutes(), prefix: None, netmask: None }
    }
}

const fn five_minutes() -> u32 {
    300
}

/// What a client is told whose connection no real server takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoRealServer {
    /// ICMP port unreachable, as IPVS has it: the default.
    #[default]
    Icmp,
    /// Nothing.
    Drop,
    /// A TCP reset; for what is not TCP of a service by mark, as `icmp`.
    Reset,
}

impl NoRealServer {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Timeouts of a service's own, in seconds, 1 to 2678400 (31 days); what is left out is as in the settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceTimeouts {
    /// Until an idle established TCP connection ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub tcp: Option<u32>,
    /// Until a TCP connection ends after a FIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub tcpfin: Option<u32>,
    /// Until a UDP entry ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub udp: Option<u32>,
}

/// How requests reach a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Direct routing (`ipvsadm -g`): the default.
    #[default]
    DirectRouting,
    /// Tunnel (`ipvsadm -i`).
    Tunnel,
    /// Masquerading (`ipvsadm -m`): the real server's way to clients leads through the director.
    Masquerading,
}

/// A virtual service as a user describes it; documents write it as `ServiceForm` has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "ServiceForm", into = "ServiceForm")]
pub struct ServiceSpec {
    /// The protocol; or that it is a service by mark.
    pub protocol: Protocol,
    /// The VIP; or the mark, as [`ServiceKey`] has it.
    pub address: IpAddr,
    /// The vport, 1 to 65535; with persistence also 0, for every port that no other service of the VIP has; 0 with a mark.
    pub port: u16,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// The scheduler's flags (`ipvsadm -b`).
    pub flags: BTreeSet<SchedulerFlag>,
    /// Persistence (`ipvsadm -p`): a client's connections go where its first one went.
    pub persistence: Option<Persistence>,
    /// One-packet scheduling (`ipvsadm -o`): UDP only.
    pub one_packet: bool,
    /// What a client is told whose connection no real server takes; `icmp` when left out.
    pub no_real_server: NoRealServer,
    /// Timeouts of its own.
    pub timeouts: Option<ServiceTimeouts>,
    /// How its real servers are checked, and what follows.
    pub health: Option<HealthSpec>,
    /// The real servers, in the order in which they were added.
    pub real_servers: Vec<RealServerSpec>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_false(value: &bool) -> bool {
    !*value
}

impl ServiceSpec {
    /// Its natural key.
    pub fn key(&self) -> ServiceKey {
        ServiceKey { protocol: self.protocol, address: self.address, port: self.port }
    }
}

/// A real server as a user describes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RealServerSpec {
    /// The RIP.
    #[schema(value_type = String, example = "10.10.24.21")]
    pub address: IpAddr,
    /// The rport; the service's vport when left out, and always for direct routing and tunnels. For a service of port 0 packets
    /// keep their own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub port: Option<u16>,
    /// The weight, 0 to 2147483647; 1 when left out; 0 is quiescent: no new connections.
    #[serde(default = "one")]
    #[schema(maximum = 2_147_483_647)]
    pub weight: u32,
    /// With so many connections it gets no new ones (`ipvsadm -x`); 0, when left out, is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(maximum = 2_147_483_647)]
    pub upper_threshold: u32,
    /// With fewer connections it gets new ones again (`ipvsadm -y`); 0, when left out, is three quarters of the upper one.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(maximum = 2_147_483_647)]
    pub lower_threshold: u32,
    /// The forwarding method; direct routing when left out.
    #[serde(default)]
    pub method: Method,
    /// The tunnel's type and what belongs to it, where the method is `tunnel`; `ipip` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Its MAC, where the kernel is not to be asked: `02:00:00:00:00:15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// How it is checked, where that differs from its service's other real servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

const fn one() -> u32 {
    1
}

/// Part of a service to change, as a JSON merge patch (RFC 7396): what is left out stays, `null` puts a default back, and objects change
/// in what they name. Every field of a service may stand here, but for those of its key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicePatch {
    /// A new scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// New flags for the scheduler, in place of all that there were; another scheduler without them here begins without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<BTreeSet<SchedulerFlag>>,
    /// Persistence; `null` ends it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Persistence>)]
    pub persistence: Option<Option<Persistence>>,
    /// One-packet scheduling on or off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
    /// Checks; `null` ends them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<HealthSpec>)]
    pub health: Option<Option<HealthSpec>>,
    /// What a client is told whose connection no real server takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_real_server: Option<NoRealServer>,
    /// Timeouts; `null` leaves those of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<ServiceTimeouts>)]
    pub timeouts: Option<Option<ServiceTimeouts>>,
    /// New real servers, in place of all that there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_servers: Option<Vec<RealServerSpec>>,
}

/// Tells a field that is `null` from one that is left out, which serde's default stands for.
fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// Part of a real server to change, as a JSON merge patch (RFC 7396), as with services.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RealServerPatch {
    /// A new weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// A new upper threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_threshold: Option<u32>,
    /// A new lower threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_threshold: Option<u32>,
    /// A new forwarding method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The tunnel; with a new method other than `tunnel` there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// A new static MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// A check of its own; `null` makes it that of the service.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<HealthSpec>)]
    pub health: Option<Option<HealthSpec>>,
}
