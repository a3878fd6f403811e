//! Settings that the packet path obeys, under IPVS's sysctl names.

/// Timeouts that `ipvsadm --set` changes, in seconds, each 1 to 2 678 400 (31 days).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Established TCP connections; 900 by default.
    pub tcp: u32,
    /// TCP connections after a FIN; 120 by default.
    pub tcp_fin: u32,
    /// UDP; 300 by default.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900, tcp_fin: 120, udp: 300 }
    }
}

/// What direct routing does to the TTL or hop limit. A tunnel always decrements it (RFC 2003 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ttl {
    /// The IP packet is not touched at all.
    #[default]
    Preserve,
    /// Decremented, as the kernel does; at 1 the packet is answered with ICMP time exceeded.
    Decrement,
}

/// When a defence is in force: 0, 1 or 2, and 3 of the settings that IPVS has for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Never.
    #[default]
    Never,
    /// While fewer places of the worker's table are free than `amemthresh` says.
    Automatic,
    /// Always.
    Always,
}

/// Everything that changes how a worker treats packets and that is not a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of their own, as in IPVS")]
pub struct Settings {
    /// Any TCP segment may make an entry, not only a SYN.
    pub sloppy_tcp: bool,
    /// Any SCTP packet but ABORT may make an entry, not only INIT.
    pub sloppy_sctp: bool,
    /// An ICMP error about a service, but about no connection, may make an entry.
    pub schedule_icmp: bool,
    /// A masquerading real server gets port unreachable for packets from its rport that belong to no connection; otherwise they are
    /// routed on.
    pub nat_icmp_send: bool,
    /// Tunnelled IPv4 packets that must not be fragmented are not, and their senders are told what length fits.
    pub pmtu_disc: bool,
    /// Packets of an entry whose real server was removed end the entry and are scheduled anew; otherwise they are dropped.
    pub expire_nodest_conn: bool,
    /// Templates to a real server of weight 0 are not followed; otherwise its known clients still get there.
    pub expire_quiescent_template: bool,
    /// When a SYN on an ended entry is scheduled anew: 0 never, 1 in `TIME_WAIT` and `CLOSE`, with 2 added also in `FIN_WAIT` in direct routing.
    pub conn_reuse_mode: u8,
    /// Whether entries that few packets used are ended at random, half-open ones first.
    pub drop_entry: Mode,
    /// Whether some of the first packets of connections are dropped.
    pub drop_packet: Mode,
    /// Whether TCP follows the tables that keep a SYN in `SYNACK`.
    pub secure_tcp: Mode,
    /// The percentage of a worker's places below which free ones are too few, 0 to 100.
    pub amemthresh: u8,
    /// While `drop_packet` is always in force, every so many-th first packet is dropped; 0 for none.
    pub am_droprate: u32,
    /// Seconds that `lblc` remembers an unused destination address; 0 to 2 678 400.
    pub lblc_expiration: u32,
    /// Seconds that `lblcr` remembers an unused destination address, and that a set of several real servers must be unchanged before it
    /// loses one; 0 to 2 678 400.
    pub lblcr_expiration: u32,
    /// Default timeouts.
    pub timeouts: Timeouts,
    /// What direct routing does to the TTL.
    pub ttl: Ttl,
    /// Frames a second that each worker hands to the kernel at most; a burst of a tenth of it is let through at once.
    pub exception_rate: u32,
    /// ICMP errors a second that each worker sends at most.
    pub icmp_error_rate: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sloppy_tcp: false,
            sloppy_sctp: false,
            schedule_icmp: false,
            nat_icmp_send: false,
            pmtu_disc: true,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            conn_reuse_mode: 1,
            drop_entry: Mode::Never,
            drop_packet: Mode::Never,
            secure_tcp: Mode::Never,
            amemthresh: 10,
            am_droprate: 10,
            lblc_expiration: 86_400,
            lblcr_expiration: 86_400,
            timeouts: Timeouts::default(),
            ttl: Ttl::Preserve,
            exception_rate: 10_000,
            icmp_error_rate: 1_000,
        }
    }
}
