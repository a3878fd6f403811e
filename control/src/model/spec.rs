//! Virtual services and real servers as users describe and change them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::form::ServiceForm;
use super::health::HealthSpec;
use super::{Protocol, ServiceKey};

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
}

impl SchedulerFlag {
    /// The name that `-b` takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShFallback => "sh-fallback",
            Self::ShPort => "sh-port",
            Self::MhFallback => "mh-fallback",
            Self::MhPort => "mh-port",
        }
    }

    /// The scheduler that takes it.
    pub const fn scheduler(self) -> Scheduler {
        match self {
            Self::ShFallback | Self::ShPort => Scheduler::Sh,
            Self::MhFallback | Self::MhPort => Scheduler::Mh,
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
}

impl Default for Persistence {
    fn default() -> Self {
        Self { timeout: five_minutes(), prefix: None }
    }
}

const fn five_minutes() -> u32 {
    300
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
    /// Masquerading (`ipvsadm -m`).
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
    /// The rport; the service's vport when left out, and always for direct routing.
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

/// Part of a service to change: what is left out stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicePatch {
    /// A new scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// New flags for the scheduler, in place of all that there were; another scheduler begins without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<BTreeSet<SchedulerFlag>>,
    /// New persistence; `null` ends it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Persistence>)]
    pub persistence: Option<Option<Persistence>>,
    /// One-packet scheduling on or off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
    /// New checks in place of those that there were; `null` ends them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<HealthSpec>)]
    pub health: Option<Option<HealthSpec>>,
}

/// Tells a field that is `null` from one that is left out, which serde's default stands for.
fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

impl ServicePatch {
    /// What `service` becomes.
    pub fn apply(&self, service: &mut ServiceSpec) {
        if let Some(scheduler) = self.scheduler
            && scheduler != service.scheduler
        {
            service.scheduler = scheduler;
            service.flags.clear();
        }
        if let Some(flags) = &self.flags {
            service.flags.clone_from(flags);
        }
        service.persistence = self.persistence.unwrap_or(service.persistence);
        service.one_packet = self.one_packet.unwrap_or(service.one_packet);
        if let Some(health) = &self.health {
            service.health.clone_from(health);
        }
    }
}

/// Part of a real server to change: what is left out stays.
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
    /// A new static MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// A new check of its own; `null` makes it that of the service.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<HealthSpec>)]
    pub health: Option<Option<HealthSpec>>,
}

impl RealServerPatch {
    /// What `server` becomes.
    pub fn apply(&self, server: &mut RealServerSpec) {
        server.weight = self.weight.unwrap_or(server.weight);
        server.upper_threshold = self.upper_threshold.unwrap_or(server.upper_threshold);
        server.lower_threshold = self.lower_threshold.unwrap_or(server.lower_threshold);
        server.method = self.method.unwrap_or(server.method);
        if self.mac.is_some() {
            server.mac.clone_from(&self.mac);
        }
        if let Some(health) = &self.health {
            server.health.clone_from(health);
        }
    }
}
