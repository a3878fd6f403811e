//! Virtual services and real servers as the workers see them: immutable snapshots made by the control plane.

use std::sync::Arc;

use crate::address::Address;
use crate::schedule::Buckets;
use crate::settings::Timeouts;
use crate::stats::{ServerStats, ServiceStats};

/// What a virtual service is for: a transport protocol, by its IP protocol number (IANA), or a mark.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// Any protocol: of services by mark and of their templates, which IPVS lists as `IP`. No packet has it.
    Ip = 0,
    /// TCP (RFC 9293).
    Tcp = 6,
    /// UDP (RFC 768).
    Udp = 17,
    /// SCTP (RFC 9260).
    Sctp = 132,
}

impl Protocol {
    /// The protocol of a flow with this IP protocol number.
    #[inline]
    pub const fn of_flow(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            132 => Self::Sctp,
            _ => Self::Udp,
        }
    }
}

/// What a virtual service is known by on the packet path: protocol, VIP and vport; or a mark, see [`ServiceKey::marked`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The VIP.
    pub address: Address,
    /// The vport; 0 for a service that takes every port that no other service of its VIP has.
    pub port: u16,
}

impl ServiceKey {
    /// The key of the service by mark `mark` for packets of one family. IPVS puts the mark where the VIP would be, and lists
    /// it so in templates: 7 is `0.0.0.7` or `0:7::`. A transport protocol's services never meet these.
    #[inline]
    pub const fn marked(mark: u32, v4: bool) -> Self {
        let address = if v4 { Address::v4(mark) } else { Address((mark as u128) << 96) };
        Self { protocol: Protocol::Ip, address, port: 0 }
    }

    /// Whether it is a mark's.
    #[inline]
    pub const fn is_marked(&self) -> bool {
        matches!(self.protocol, Protocol::Ip)
    }

    /// Whether it takes every port that no other service of its VIP has.
    #[inline]
    pub const fn takes_every_port(&self) -> bool {
        self.port == 0 && !self.is_marked()
    }
}

/// A virtual service's place in the workers' tables; given out by the control plane, reused only after every worker let go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A real server's place in the workers' tables; the same (service, address, port) gets the same id back while entries refer to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ServerId(pub u32);

/// How requests reach a real server (ipvsadm(8): `-g`, `-i`, `-m`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Direct routing: only the Ethernet addresses change.
    DirectRouting,
    /// Tunnel: the whole packet is carried inside an IP packet to the real server (RFC 2003, RFC 2473).
    Tunnel,
    /// Masquerading: addresses and ports are translated in both directions.
    Masquerading,
}

/// What stands between the outer IP header of a tunnel and the packet inside (ipvsadm(8), `--tun-type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Encapsulation {
    /// Nothing: IP in IP (RFC 2003, RFC 2473).
    IpIp,
    /// A UDP and a GUE header (draft-ietf-intarea-gue).
    Gue {
        /// The UDP port of the receiver.
        port: u16,
        /// Whether UDP's checksum is there.
        checksum: bool,
    },
    /// A GRE header (RFC 2784).
    Gre {
        /// Whether GRE's checksum is there.
        checksum: bool,
    },
}

/// The tunnel to a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// The source of the outer packets: a DIP of the RIP's family.
    pub source: Address,
    /// Its type.
    pub encapsulation: Encapsulation,
}

/// The schedulers that a worker can run (ipvsadm(8), `-s`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SchedulerKind {
    /// Round robin.
    RoundRobin,
    /// Weighted round robin.
    WeightedRoundRobin,
    /// Least connections.
    LeastConnections,
    /// Weighted least connections.
    WeightedLeastConnections,
    /// Shortest expected delay.
    ShortestExpectedDelay,
    /// Never queue.
    NeverQueue,
    /// Locality-based least connections.
    LocalityLeastConnections,
    /// Locality-based least connections with replication.
    LocalityReplicated,
    /// Weighted failover.
    Failover,
    /// Weighted overflow.
    Overflow,
    /// Power of two choices.
    TwoChoices,
    /// Destination hashing.
    DestinationHash,
    /// Maglev hashing, with the flags `mh-port` and `mh-fallback`.
    Maglev {
        /// The client's port counts too.
        port: bool,
        /// Another real server is tried when the client's own takes no new connections.
        fallback: bool,
    },
    /// Source hashing, with the flags `sh-port` and `sh-fallback`.
    SourceHash {
        /// The client's port counts too.
        port: bool,
        /// Another real server is tried when the client's own takes no new connections.
        fallback: bool,
    },
}

/// How many connections a real server is given at most (ipvsadm(8), `-x` and `-y`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Thresholds {
    /// With so many connections it gets no new ones; 0 for no limit.
    pub upper: u32,
    /// With fewer it gets new ones again; 0 for three quarters of `upper`.
    pub lower: u32,
}

impl Thresholds {
    /// Whether a real server with `total` connections is overloaded from now on.
    #[inline]
    pub const fn are_reached(self, total: u32) -> bool {
        self.upper != 0 && total >= self.upper
    }

    /// Whether an overloaded real server with `total` connections left may have new ones again.
    #[inline]
    pub const fn are_relieved(self, total: u32) -> bool {
        if self.lower != 0 { total < self.lower } else { self.upper == 0 || total as u64 * 4 < self.upper as u64 * 3 }
    }
}

/// Where a frame for a real server leaves: the port and the destination MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// Index of the port in the configuration's order.
    pub port: u16,
    /// The neighbour's MAC; never our own, multicast, broadcast or zero.
    pub mac: [u8; 6],
    /// The link's MTU in bytes (IP packet without Ethernet header).
    pub mtu: u16,
}

/// Whether a real server is being drained, and what becomes of its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Drain {
    /// It is not.
    #[default]
    No,
    /// They stay until they end by themselves. Persistence brings no new ones.
    Wait,
    /// Each ends with its client's next packet, which is answered with a TCP reset, or with port unreachable.
    Reset,
    /// Each ends with its client's next packet, which is scheduled as if it were the first of a connection.
    Reschedule,
}

impl Drain {
    /// Whether a connection ends with its next packet.
    #[inline]
    pub const fn ends_connections(self) -> bool {
        matches!(self, Self::Reset | Self::Reschedule)
    }
}

/// A real server as entries refer to it; outlives its membership in the service while entries are left.
#[derive(Debug)]
pub struct RealServer {
    /// Its place in the table.
    pub id: ServerId,
    /// The service that it is a member of, or was: what is counted for it is counted for that one, too.
    pub service: ServiceId,
    /// The RIP.
    pub address: Address,
    /// The rport; for direct routing the service's vport; 0 for that of each packet.
    pub port: u16,
    /// The protocol of its service; [`Protocol::Ip`] of one by mark.
    pub protocol: Protocol,
    /// How requests of new connections reach it; each connection keeps the method that it was made with.
    pub method: Method,
    /// The tunnel to it, for connections that were made with that method; `None` where the director has no address of its family.
    pub tunnel: Option<Tunnel>,
    /// `true` while it is a member of its service; `false` once removed, when entries may still refer to it.
    pub available: bool,
    /// Its weight; 0 is quiescent: no new connections.
    pub weight: u32,
    /// Whether it is being drained. One whose connections end with their next packet must not be available.
    pub drain: Drain,
    /// How many connections it is given at most.
    pub thresholds: Thresholds,
    /// `None` while its MAC is not known: then it is not scheduled and its frames are dropped with a verdict of their own.
    pub next_hop: Option<NextHop>,
    /// Counters, one line a worker.
    pub stats: Arc<ServerStats>,
}

impl RealServer {
    /// The rport that a packet to `vport` goes to.
    #[inline]
    pub const fn port_for(&self, vport: u16) -> u16 {
        if self.port == 0 { vport } else { self.port }
    }
}

/// Persistence of a virtual service (ipvsadm(8), `-p` and `-M`): a client's connections go where its first one went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persistence {
    /// Seconds that this is remembered after the client's last new connection, 1 to 2 678 400.
    pub timeout: u32,
    /// The bits of [`Address`] that clients must have in common to be treated as one.
    pub mask: u128,
}

/// A real server in its service's list, with what a scheduler needs.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its place in the table of real servers.
    pub server: ServerId,
    /// Its weight; 0 is quiescent.
    pub weight: u32,
    /// Whether it has a next hop; a scheduler passes over those without.
    pub reachable: bool,
    /// Whether it has thresholds, so that a scheduler must ask whether it is overloaded.
    pub limited: bool,
    /// Counters, one line a worker.
    pub stats: Arc<ServerStats>,
}

/// What a client is told whose connection no real server takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NoRealServer {
    /// ICMP port unreachable, as IPVS has it.
    #[default]
    Icmp,
    /// Nothing.
    Drop,
    /// A TCP reset (RFC 9293 section 3.10.7.1).
    Reset,
}

/// A virtual service with its members in scheduling order: newest first, as IPVS keeps them.
#[derive(Debug)]
pub struct VirtualService {
    /// Its place in the table.
    pub id: ServiceId,
    /// What packets are matched by.
    pub key: ServiceKey,
    /// The scheduler.
    pub scheduler: SchedulerKind,
    /// One-packet scheduling (`-o`): every packet is scheduled and no entry is made; of a service by mark, every UDP packet.
    pub one_packet: bool,
    /// Persistence, where the service has it.
    pub persistence: Option<Persistence>,
    /// Counts the changes that a scheduler must notice (member added, removed or edited); equal means the list is unchanged,
    /// so that a new MAC does not disturb the order.
    pub revision: u64,
    /// Members, newest first.
    pub members: Vec<Member>,
    /// What clients are told when no real server takes new connections.
    pub no_real_server: NoRealServer,
    /// Whose bucket is whose, for the schedulers that hash; made for this list of members.
    pub buckets: Buckets,
    /// Timeouts of its own, where they differ from the director's.
    pub timeouts: Option<Timeouts>,
    /// Counters, one line a worker.
    pub stats: Arc<ServiceStats>,
}
