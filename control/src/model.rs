//! The documents of the REST API, of the state file and of `[[service]]` in `baton.toml`: one set of types for all three.

mod changes;
mod drain;
mod event;
mod form;
mod health;
mod marks;
mod merge;
pub mod moment;
mod port;
mod spec;
mod tunnel;
mod watch;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use changes::{Change, Difference, Edit, History, HistoryEntry, Outcome, PastDocument, Piece, Rollback};
pub use drain::{Drain, DrainOutcome, DrainSpec, DrainState, Then};
pub use event::{Event, Events, Gap, What};
pub use form::Family;
pub use health::{CheckType, Health, HealthSpec, HealthState, OnFailure, Panic, Profile, Quorum, SorryServer, Span, StatusSet, Via};
pub use marks::{MarkRule, MarkRules, Network, PortRange};
pub use merge::{patched, pointer};
pub use port::{Member, Multicast, Port, Spread};
pub use spec::{
    Method, NoRealServer, Persistence, RealServerPatch, RealServerSpec, Scheduler, SchedulerFlag, ServicePatch, ServiceSpec,
    ServiceTimeouts,
};
pub use tunnel::{Tunnel, TunnelChecksum, TunnelType};
pub use watch::{ArpLeak, ProbeMode, Vip, VipConflict, VipState};

/// What a virtual service can be for: a transport protocol, or a mark.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Packets of any protocol that have a mark (`ipvsadm -f`); never a packet's own protocol.
    Mark,
}

impl Protocol {
    /// `tcp`, `udp`, `sctp` or `mark`, as in ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Mark => "mark",
        }
    }
}

/// A virtual service's natural key: `tcp:10.10.24.88:80`, `udp:[fd00::1]:53`; of a service by mark `mark:7`, for IPv6 `mark6:7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceKey {
    /// The protocol.
    pub protocol: Protocol,
    /// The VIP; a mark has the form of an address here, as IPVS lists it: 7 is `0.0.0.7` or `0:7::`.
    pub address: IpAddr,
    /// The vport; 0 with a mark.
    pub port: u16,
}

impl ServiceKey {
    /// The key of the service by mark `mark` (not 0) for packets of one family.
    pub fn marked(mark: u32, ipv6: bool) -> Self {
        let address = if ipv6 { Ipv6Addr::from_bits(u128::from(mark) << 96).into() } else { Ipv4Addr::from_bits(mark).into() };
        Self { protocol: Protocol::Mark, address, port: 0 }
    }

    /// The mark, of a service by mark.
    pub fn mark(&self) -> Option<u32> {
        let bits = match self.address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => u32::try_from(address.to_bits() >> 96).unwrap_or_default(),
        };
        (self.protocol == Protocol::Mark).then_some(bits)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark() {
            Some(mark) => write!(f, "{}:{mark}", if self.address.is_ipv6() { "mark6" } else { "mark" }),
            None => write!(f, "{}:{}", self.protocol.as_str(), SocketAddr::new(self.address, self.port)),
        }
    }
}

/// Why a text is not a service's id.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is not a virtual service's id: expected tcp:ADDRESS:PORT, udp:ADDRESS:PORT or sctp:ADDRESS:PORT, an IPv6 address in brackets; mark:N or mark6:N"
)]
pub struct BadKey(String);

impl FromStr for ServiceKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = || BadKey(text.to_owned());
        let (protocol, rest) = text.split_once(':').ok_or_else(bad)?;
        if let "mark" | "mark6" = protocol {
            let mark = rest.parse().ok().filter(|mark| *mark > 0 && rest.bytes().all(|byte| byte.is_ascii_digit()));
            return mark.map(|mark| Self::marked(mark, protocol == "mark6")).ok_or_else(bad);
        }
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(bad()),
        };
        let socket: SocketAddr = rest.parse().map_err(|_| bad())?;
        Ok(Self { protocol, address: socket.ip(), port: socket.port() })
    }
}

/// What passed through a service or a real server since it was made or its counters were zeroed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients: 0 in direct routing, where answers never pass the director.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// Rates over the last 8 seconds or so, estimated as IPVS does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// Connections a second.
    pub connections: u64,
    /// Packets a second from clients.
    pub in_packets: u64,
    /// Packets a second to clients.
    pub out_packets: u64,
    /// Bytes a second from clients.
    pub in_bytes: u64,
    /// Bytes a second to clients.
    pub out_bytes: u64,
}

/// What a real server is fit for at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RealServerState {
    /// It gets new connections.
    Ready,
    /// Its weight is 0: it keeps its connections and gets no new ones.
    Quiescent,
    /// It has reached its upper threshold: it keeps its connections and gets no new ones until enough of them have ended.
    Overloaded,
    /// Its MAC is not known: it gets nothing.
    NoMac,
    /// Its check fails.
    Down,
    /// It answers for a VIP: it keeps its connections and gets no new ones until it has been quiet.
    Quarantined,
    /// It is being drained, or was and is kept out: it keeps its connections and gets no new ones.
    Draining,
}

/// A virtual service as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// `tcp:10.10.24.88:80`; `mark:7` or `mark6:7`.
    pub id: String,
    /// The protocol; `mark` of a service by mark.
    pub protocol: Protocol,
    /// The VIP; of a service by mark, the mark as IPVS lists it: `0.0.0.7` or `0:7::`.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The vport; 0 of a service by mark.
    pub port: u16,
    /// The mark, of a service by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// The scheduler's flags.
    #[serde(default)]
    pub flags: BTreeSet<SchedulerFlag>,
    /// Persistence, where the service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// One-packet scheduling.
    #[serde(default)]
    pub one_packet: bool,
    /// How its real servers are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// Whether enough real servers are healthy, where they are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
    /// What a client is told whose connection no real server takes.
    #[serde(default)]
    pub no_real_server: NoRealServer,
    /// Timeouts of its own, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ServiceTimeouts>,
    /// Whether the VIP is ours; left out when it is.
    #[serde(default, skip_serializing_if = "VipState::is_held")]
    pub vip: VipState,
    /// Who else speaks for the VIP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<VipConflict>,
    /// Counters.
    pub stats: Stats,
    /// Rates.
    pub rates: Rates,
    /// The real servers, in the order in which they were added.
    pub real_servers: Vec<RealServer>,
}

/// A real server as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RealServer {
    /// `10.10.24.21:80`.
    pub id: String,
    /// The RIP.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The rport.
    pub port: u16,
    /// The weight.
    pub weight: u32,
    /// Connections at which it gets no new ones; 0 is no limit.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again; 0 is three quarters of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
    /// The forwarding method.
    pub method: Method,
    /// The tunnel, where that is the method.
    #[serde(default)]
    pub tunnel: Option<Tunnel>,
    /// The MAC that its frames get, when known.
    pub mac: Option<String>,
    /// The port that its frames leave by.
    pub link: Option<String>,
    /// What it is fit for.
    pub state: RealServerState,
    /// Why it is not ready, in words.
    pub reason: Option<String>,
    /// What its checks say, where it is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How far it is drained, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Active connections.
    pub active_connections: u32,
    /// All other entries.
    pub inactive_connections: u32,
    /// Persistence templates: clients whose next connections go here.
    #[serde(default)]
    pub persistent_connections: u32,
    /// Counters.
    pub stats: Stats,
    /// Rates.
    pub rates: Rates,
}

/// A connection entry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// The protocol; `mark` for the template of a service by mark, whose `virtual` is the mark.
    pub protocol: Protocol,
    /// The client, `198.51.100.1:10000`.
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// VIP and vport.
    #[serde(rename = "virtual")]
    #[schema(value_type = String)]
    pub virtual_address: SocketAddr,
    /// RIP and rport.
    #[schema(value_type = String)]
    pub server: SocketAddr,
    /// The state, as `ipvsadm -lc` names it.
    pub state: String,
    /// Seconds until the entry ends.
    pub expires_in: f64,
    /// Packets from the client.
    pub in_packets: u32,
    /// The worker that owns the entry.
    pub worker: u32,
}

/// A page of connection entries.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// Entries on all workers, matching or not.
    pub total: u64,
    /// The entries of this page.
    pub connections: Vec<Connection>,
    /// Pass it as `cursor` for the next page; absent on the last.
    pub next: Option<String>,
}

/// What ended with a flush.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// Entries that were ended.
    pub removed: u64,
}

/// The services with the revision of the configuration that they belong to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// Grows by one with every change.
    pub revision: u64,
    /// All virtual services, in the order in which they were added.
    pub services: Vec<Service>,
}

/// Settings under IPVS's sysctl names, and the timeouts of `ipvsadm --set`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// 1: any TCP segment may make an entry.
    pub sloppy_tcp: u8,
    /// 1: any SCTP packet but ABORT may make an entry.
    pub sloppy_sctp: u8,
    /// 1: an ICMP error about a service, but about no connection, may make an entry.
    pub schedule_icmp: u8,
    /// 1: a masquerading real server gets port unreachable for packets from its rport that belong to no connection.
    pub nat_icmp_send: u8,
    /// 1: a tunnelled IPv4 packet that must not be fragmented stays so, and its sender is told what length fits; 0: it is fragmented.
    pub pmtu_disc: u8,
    /// 1: packets of an entry whose real server was removed are scheduled anew; 0: they are dropped.
    pub expire_nodest_conn: u8,
    /// 1: clients that persistence sends to a real server of weight 0 are scheduled anew; 0: they still get there.
    pub expire_quiescent_template: u8,
    /// When a SYN on an ended entry is scheduled anew: 0 never, 1 in `TIME_WAIT` and `CLOSE`, with 2 added also in `FIN_WAIT`.
    pub conn_reuse_mode: u8,
    /// Ends entries at random, half-open ones and those that few packets used: 0 never, 1 or 2 while the table is short of free places,
    /// 3 always.
    pub drop_entry: u8,
    /// Drops some of the first packets of connections: 0 never, 1 or 2 while the table is short of free places, the more the shorter,
    /// 3 always, one of `am_droprate`.
    pub drop_packet: u8,
    /// Uses the TCP states that keep a SYN in `SYNACK`: 0 never, 1 or 2 while the table is short of free places, 3 always.
    pub secure_tcp: u8,
    /// The percentage of a worker's places below which free ones are too few. (The kernel's counts pages of free memory.)
    pub amemthresh: u8,
    /// With `drop_packet` 3, every so many-th first packet is dropped; 0 for none.
    pub am_droprate: u32,
    /// Seconds that `lblc` remembers an unused destination address.
    pub lblc_expiration: u32,
    /// Seconds that `lblcr` remembers an unused destination address, and after which an unchanged set of real servers loses one.
    pub lblcr_expiration: u32,
    /// Seconds until an idle established TCP connection ends.
    pub timeout_tcp: u32,
    /// Seconds until a TCP connection ends after a FIN.
    pub timeout_tcpfin: u32,
    /// Seconds until a UDP entry ends.
    pub timeout_udp: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sloppy_tcp: 0,
            sloppy_sctp: 0,
            schedule_icmp: 0,
            nat_icmp_send: 0,
            pmtu_disc: 1,
            expire_nodest_conn: 0,
            expire_quiescent_template: 0,
            conn_reuse_mode: 1,
            drop_entry: 0,
            drop_packet: 0,
            secure_tcp: 0,
            amemthresh: 10,
            am_droprate: 10,
            lblc_expiration: 86_400,
            lblcr_expiration: 86_400,
            timeout_tcp: 900,
            timeout_tcpfin: 120,
            timeout_udp: 300,
        }
    }
}

/// A worker as it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its number, from 0.
    pub id: u32,
    /// The CPU core that it runs on.
    pub core: u32,
    /// The version of the configuration that it runs.
    pub version: u64,
    /// Connection entries that it holds.
    pub connections: u64,
    /// Half-open entries among them.
    pub half_open: u64,
    /// Entries that it can hold.
    pub capacity: u64,
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// ICMP errors sent.
    pub icmp_errors: u64,
    /// TCP resets sent.
    #[serde(default)]
    pub resets: u64,
    /// Entries that nothing had confirmed yet (half open, or of one datagram) and that ended to make room for new connections.
    #[serde(default)]
    pub recycled: u64,
    /// Packets forwarded without an entry because there was no room for one.
    #[serde(default)]
    pub without_entry: u64,
    /// Entries that `drop_entry` ended.
    #[serde(default)]
    pub dropped_entries: u64,
    /// New connections of persistent services whose template the other workers were not told of, for want of room.
    #[serde(default)]
    pub unshared_templates: u64,
    /// The defences in force: `drop_entry`, `drop_packet`, `secure_tcp`.
    #[serde(default)]
    pub defences: Vec<String>,
    /// Second and later fragments of tunnelled packets sent.
    #[serde(default)]
    pub fragments: u64,
    /// Frames received that were handed to other workers, which have their connections and give them their verdicts.
    #[serde(default)]
    pub handed_over: u64,
    /// Frames that other workers received and handed to this one.
    #[serde(default)]
    pub taken_over: u64,
    /// Frames counted as what they are that another worker sends, because this one has no transmit queue on their port.
    #[serde(default)]
    pub sent_by_others: u64,
    /// Frames sent that other workers counted so.
    #[serde(default)]
    pub sent_for_others: u64,
    /// Frames of the kernel's sent on.
    pub injected: u64,
    /// Frames by verdict; only those that are not zero, unless all are asked for.
    pub verdicts: BTreeMap<String, u64>,
    /// Share of cycles spent on frames, 0 to 1.
    pub busy: f64,
}

/// A neighbour that real servers or gateways are reached by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Neighbour {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its MAC, when known.
    pub mac: Option<String>,
    /// The port that it is on.
    pub port: String,
    /// `reachable`, `stale`, `probing`, `incomplete`, `failed` or `static`.
    pub state: String,
}

/// The whole configuration that can change while the director runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Grows by one with every change; ignored in a PUT.
    #[serde(default)]
    pub revision: u64,
    /// Settings.
    #[serde(default)]
    pub settings: Settings,
    /// Mark rules, in the order in which packets meet them: at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<MarkRule>,
    /// All virtual services with their real servers.
    #[serde(default)]
    pub services: Vec<ServiceSpec>,
}

/// A faulty field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Where it is: a JSON pointer (RFC 6901) into the request's document, such as `/real_servers/0/weight`.
    pub pointer: String,
    /// What is wrong, what was given and what is allowed.
    pub detail: String,
}

/// An error as the API answers it (RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable name for this kind of error: `/problems/service-exists`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here.
    pub detail: String,
    /// Every faulty field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}
