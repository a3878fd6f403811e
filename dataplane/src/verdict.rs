//! What became of a frame: exactly one verdict each, every verdict counted.

use crate::connection::InsertError;
use crate::stats::Counter;

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident => $label:literal,)+) => {
        /// What became of a frame that was received or taken over:
        /// `rx + taken over = forwarded + answered + exception + every drop + handed over`, per worker, always.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Verdict { $($(#[doc = $doc])+ $name,)+ }

        impl Verdict {
            /// All verdicts, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in metrics and listings: `forwarded`, `answered`, `exception`, or the reason of the drop.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

verdicts! {
    /// Sent to a real server, or from a masquerading one to its client.
    Forwarded => "forwarded",
    /// Answered by the worker itself: ARP, neighbour solicitation, echo.
    Answered => "answered",
    /// Handed to the kernel.
    Exception => "exception",
    /// Shorter than the headers it must have.
    Short => "short",
    /// Its destination MAC is neither ours nor one we listen to.
    NotOurMac => "not_our_mac",
    /// Its source MAC is one of ours: a loop.
    OwnMacSource => "own_mac_source",
    /// Neither IPv4, IPv6 nor ARP.
    EtherType => "ether_type",
    /// A VLAN tag, or a number of them, that the port has no VLAN for.
    UnknownVlan => "unknown_vlan",
    /// The version in the IP header is not that of the ether type.
    BadVersion => "bad_version",
    /// IHL below 5, or a TCP data offset below 5 or past the end.
    BadHeaderLength => "bad_header_length",
    /// A length field that says more than the frame holds, or less than its headers.
    BadLength => "bad_length",
    /// The IPv4 header checksum is wrong.
    BadChecksum => "bad_checksum",
    /// The source is loopback, multicast, broadcast, unspecified or IPv4-mapped.
    MartianSource => "martian_source",
    /// The destination is loopback, unspecified or IPv4-mapped: an address that is on no link.
    MartianDestination => "martian_destination",
    /// The source is one of our own addresses.
    OwnSource => "own_source",
    /// An ARP or neighbour discovery message that breaks its own rules (RFC 826, RFC 4861).
    BadNeighbourMessage => "bad_neighbour_message",
    /// A question to the whole link about an address that is not ours.
    NotForUs => "not_for_us",
    /// A later fragment of a packet whose first one was dropped.
    Fragment => "fragment",
    /// An ICMP error that quotes a packet of a virtual service, but of no connection.
    UnrelatedError => "unrelated_icmp_error",
    /// A fragment that is empty, reaches past 65535 bytes, or is cut where fragments may not be (RFC 791, RFC 8200 section 4.5).
    FragmentBad => "fragment_bad",
    /// A first fragment without the whole transport header, or a later one that lies in it (RFC 1858, RFC 3128).
    FragmentTiny => "fragment_tiny",
    /// A fragment that overlaps another or is there twice (IPv6, RFC 5722), or a second first one with another header.
    FragmentOverlap => "fragment_overlap",
    /// A later fragment whose first one did not come in time.
    FragmentLost => "fragment_lost",
    /// From a masquerading real server's rport, but of no connection: it gets ICMP port unreachable (`nat_icmp_send`), rate limited.
    NoConnection => "no_connection",
    /// A first fragment of a masqueraded SCTP packet whose port would change: the checksum over all of the packet cannot be mended.
    FragmentChecksum => "fragment_checksum",
    /// No real server takes new connections; the client gets ICMP port unreachable, rate limited, or what its service says.
    NoRealServer => "no_real_server",
    /// The entry's real server was removed (`expire_nodest_conn` 0).
    RealServerRemoved => "real_server_removed",
    /// The entry's real server has no known MAC.
    NoNextHop => "no_next_hop",
    /// The TTL or hop limit ran out; the client gets ICMP time exceeded, rate limited.
    TtlExpired => "ttl_expired",
    /// An ICMP error about a packet of one of our tunnels: the client whose packet was inside is told what it says, rate limited.
    TunnelError => "tunnel_error",
    /// Longer than the link to the real server takes; the client gets "fragmentation needed" or "packet too big".
    TooBig => "too_big",
    /// The frame would have gone back to a MAC of our own.
    WouldLoop => "would_loop",
    /// No buffer was left for a fragment of it, or no room in front of it for a tunnel's header.
    NoBuffer => "no_buffer",
    /// The first packet of a connection, given up by `drop_packet`.
    DropPacket => "drop_packet",
    /// The connection table is full of connections in use.
    TableFull => "table_full",
    /// The share of the table for half-open connections is full of those that cannot make room.
    HalfOpenLimit => "half_open_limit",
    /// More frames for the kernel than the limit allows.
    ExceptionRate => "exception_rate",
    /// The ring to the kernel is full.
    ExceptionFull => "exception_full",
    /// The ring to another worker is full.
    HandOverFull => "hand_over_full",
    /// The port took no more frames.
    TxFull => "tx_full",
}

impl From<InsertError> for Verdict {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::TableFull => Self::TableFull,
            InsertError::HalfOpenLimit => Self::HalfOpenLimit,
        }
    }
}

impl Verdict {
    /// How many verdicts there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the frame ended here.
    pub const fn is_drop(self) -> bool {
        !matches!(self, Self::Forwarded | Self::Answered | Self::Exception)
    }
}

/// Verdict counters of one worker on one port.
#[derive(Debug)]
pub struct VerdictCounters([Counter; Verdict::COUNT]);

impl Default for VerdictCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl VerdictCounters {
    /// Counts `n` frames with this verdict; only the owning worker may call it.
    #[inline]
    pub fn add(&self, verdict: Verdict, n: u64) {
        self.0[verdict as usize].add(n);
    }

    /// Frames that got this verdict.
    pub fn get(&self, verdict: Verdict) -> u64 {
        self.0[verdict as usize].get()
    }

    /// All frames that got a verdict.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}
