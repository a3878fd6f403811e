//! A connection entry: half a cache line that says what there is to know about one connection.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_ref};

#[cfg(doc)]
use crate::connection::key::Key;
use crate::sctp;
use crate::service::{Method, Protocol, ServerId, ServiceId};
use crate::tcp::State;
use crate::tick::Tick;

/// An entry's place in its worker's table; good until the entry is removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct EntryId(pub u32);

impl EntryId {
    /// The place of no entry.
    pub const NONE: Self = Self(u32::MAX);
}

/// What the table itself and the packet path note about an entry, as bits of [`Entry::flags`].
pub mod flags {
    /// The place holds an entry; otherwise it is free. Set and cleared by the table alone.
    pub const LIVE: u16 = 1 << 15;
    /// Answers do not pass the director (direct routing, tunnel), so the state follows the client's packets alone.
    pub const NO_OUTPUT: u16 = 1 << 0;
    /// Its packets go through a tunnel, whatever is its real server's method by now; never without [`NO_OUTPUT`].
    pub const TUNNELLED: u16 = 1 << 4;
    /// Made through a persistence template, which the table knows.
    pub const CONTROLLED: u16 = 1 << 1;
    /// Of a template: a connection of its own was established.
    pub const ASSURED: u16 = 1 << 2;
    /// Nothing has confirmed it yet: it waits in a queue of those that go first. Set and cleared by the table alone.
    pub const TENTATIVE: u16 = 1 << 8;
    /// Of a template: not made by TCP, so that no handshake is waited for.
    pub const NO_HANDSHAKE: u16 = 1 << 3;
    /// Of [`NO_OUTPUT`]: an answer passed the director all the same, so that the state follows both directions from then on.
    pub const ANSWERED: u16 = 1 << 5;
    /// Of IPv6. Set by the table alone.
    pub const V6: u16 = 1 << 13;
    /// Masqueraded: replies find it by the index of replies. Set by the table alone.
    pub const MASQUERADED: u16 = 1 << 14;
}

/// Set in [`Entry::protocol`] and [`Key::protocol`] of a persistence template, beside the IP protocol number: no packet has
/// such a protocol, so no packet finds a template.
pub const TEMPLATE: u8 = 1 << 6;

/// A connection as the director remembers it, or a persistence template, which remembers the real server of a client: 32 bytes,
/// half a cache line, no padding, every bit pattern valid.
///
/// IPv6 addresses do not fit: the table has them beside, so that it alone tells an entry's
/// [`key`](crate::connection::ConnectionTable::key). The bytes may lie in memory that outlives the process; nothing in them is
/// trusted to index anything.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(32))]
pub struct Entry {
    /// Both addresses as one [`word`](crate::connection::Hasher::word).
    pub(super) addresses: u64,
    /// Both [`ports`](Key::ports).
    pub(super) ports: u32,
    /// IP protocol number; with [`TEMPLATE`] for a template.
    pub protocol: u8,
    /// The value of its [`State`], or of its [`sctp::State`].
    pub state: u8,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Its [`ServerId`].
    pub server: u32,
    /// Its [`ServiceId`].
    pub service: u32,
    /// The [`Tick`] at which it ends unless a packet comes.
    pub expires: u32,
    /// Packets from the client; wraps. Of a template: how many connections it controls.
    pub in_packets: u32,
}

/// What is looked for when an entry is to be a connection whose packets only need to be sent on and counted: what of its
/// protocol, state and flags must be how. Nothing but its method, a template's control, and that an answer passed the director all the
/// same, is noted about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain(u32);

impl Plain {
    /// A connection of this protocol and family, in this state, made with this method.
    pub const fn new(protocol: Protocol, state: State, method: Method, v4: bool) -> Self {
        let made = match method {
            Method::DirectRouting => flags::NO_OUTPUT,
            Method::Tunnel => flags::NO_OUTPUT | flags::TUNNELLED,
            Method::Masquerading => flags::MASQUERADED,
        };
        let noted = flags::LIVE | made | if v4 { 0 } else { flags::V6 };
        Self(protocol as u32 | (state as u32) << 8 | (noted as u32) << 16)
    }
}

impl Entry {
    /// The vport.
    #[inline]
    pub const fn virtual_port(&self) -> u16 {
        let [_, _, high, low] = self.ports.to_le_bytes();
        u16::from_be_bytes([high, low])
    }

    /// Both [`ports`](Key::ports).
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        self.ports
    }

    /// Puts another vport in the place of its own.
    pub(super) const fn set_virtual_port(&mut self, port: u16) {
        let ([a, b, ..], [c, d]) = (self.ports.to_le_bytes(), port.to_be_bytes());
        self.ports = u32::from_le_bytes([a, b, c, d]);
    }

    /// Whether it has these ports, this protocol and this family.
    #[inline]
    pub(super) const fn has(&self, ports: u32, protocol: u8, v4: bool) -> bool {
        self.ports == ports && self.protocol == protocol && (self.flags & flags::V6 == 0) == v4
    }

    /// Whether it is as `plain` says, with these ports. Cost: two loads and comparisons.
    #[inline(always)]
    pub(super) fn is_plain(&self, plain: Plain, ports: u32) -> bool {
        self.is_like(plain) && self.ports == ports
    }

    /// Whether it is as `plain` says. Cost: a load and a comparison.
    #[inline(always)]
    pub(crate) fn is_like(&self, plain: Plain) -> bool {
        const LOOKED_AT: u32 = !(((flags::CONTROLLED | flags::ANSWERED) as u32) << 16);
        let words: &[u32; 8] = transmute_ref!(self);
        words[3] & LOOKED_AT.to_le() == plain.0.to_le()
    }

    /// When it ends if a packet at `now` lets it live for another `timeout_ticks`; `None` if that is sooner than without it.
    #[inline(always)]
    pub const fn later(&self, now: Tick, timeout_ticks: u32) -> Option<Tick> {
        let expires = now.0.wrapping_add(timeout_ticks);
        if expires.wrapping_sub(self.expires) > u32::MAX / 2 { None } else { Some(Tick(expires)) }
    }

    /// Counts a packet and has the entry end at `expires`, which [`later`](Self::later) gave.
    #[inline(always)]
    pub const fn renew(&mut self, expires: Tick) {
        self.expires = expires.0;
        self.in_packets = self.in_packets.wrapping_add(1);
    }

    /// Has the entry end at `expires`, which [`later`](Self::later) gave; counts no packet.
    #[inline(always)]
    pub const fn prolong(&mut self, expires: Tick) {
        self.expires = expires.0;
    }

    /// The real server that its packets go to.
    #[inline]
    pub const fn server(&self) -> ServerId {
        ServerId(self.server)
    }

    /// The forwarding method that it was made with, which it keeps as in IPVS; means nothing for a template.
    #[inline]
    pub const fn method(&self) -> Method {
        match self.flags & (flags::NO_OUTPUT | flags::TUNNELLED) {
            0 => Method::Masquerading,
            flags::NO_OUTPUT => Method::DirectRouting,
            _ => Method::Tunnel,
        }
    }

    /// Whether its state follows the client's packets alone, because no answer has passed the director.
    #[inline]
    pub const fn is_one_way(&self) -> bool {
        self.flags & (flags::NO_OUTPUT | flags::ANSWERED) == flags::NO_OUTPUT
    }

    /// The virtual service that it was made for.
    #[inline]
    pub const fn service(&self) -> ServiceId {
        ServiceId(self.service)
    }

    /// How far the TCP connection has come; means nothing for anything else.
    #[inline]
    pub const fn state(&self) -> State {
        State::from_value(self.state)
    }

    /// How far the SCTP association has come; means nothing for anything else.
    #[inline]
    pub const fn association(&self) -> sctp::State {
        sctp::State::from_value(self.state)
    }

    /// Whether it is a persistence template.
    #[inline]
    pub const fn is_template(&self) -> bool {
        self.protocol & TEMPLATE != 0
    }

    /// The state as `ipvsadm -lc` shows it: that of TCP or SCTP, or `UDP`; `NONE` or `ASSURED` for a template.
    pub const fn state_name(&self) -> &'static str {
        if self.is_template() {
            return if self.flags & flags::ASSURED != 0 { "ASSURED" } else { "NONE" };
        }
        match Protocol::of_flow(self.protocol) {
            Protocol::Tcp => self.state().name(),
            Protocol::Udp | Protocol::Ip => "UDP",
            Protocol::Sctp => self.association().name(),
        }
    }

    /// Whether it counts as active: TCP by state, SCTP when it is established, UDP never.
    #[inline]
    pub const fn counts_as_active(&self) -> bool {
        match Protocol::of_flow(self.protocol) {
            Protocol::Tcp => self.state().counts_as_active(),
            Protocol::Udp | Protocol::Ip => false,
            Protocol::Sctp => matches!(self.association(), sctp::State::Established),
        }
    }

    /// Whether it takes from the share of half-open connections. A template that TCP or SCTP made does until a connection of its own is
    /// established: otherwise a flood of SYNs would fill the table with templates.
    #[inline]
    pub const fn is_half_open(&self) -> bool {
        if self.is_template() {
            return self.flags & (flags::ASSURED | flags::NO_HANDSHAKE) == 0;
        }
        match Protocol::of_flow(self.protocol) {
            Protocol::Tcp => self.state().is_half_open(),
            Protocol::Sctp => self.association().is_half_open(),
            Protocol::Udp | Protocol::Ip => false,
        }
    }

    /// When it ends unless a packet comes.
    #[inline]
    pub const fn expires(&self) -> Tick {
        Tick(self.expires)
    }

    /// Whether the place holds an entry.
    #[inline]
    pub const fn is_live(&self) -> bool {
        self.flags & flags::LIVE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn entry_is_half_a_cache_line() {
        assert_eq!(size_of::<Entry>(), 32);
        assert_eq!(align_of::<Entry>(), 32);
    }

    #[test]
    fn plain_entry_has_the_state_and_nothing_noted() {
        let plain = Plain::new(Protocol::Tcp, State::Established, Method::DirectRouting, true);
        let noted = flags::LIVE | flags::NO_OUTPUT;
        let entry = Entry { ports: 7, protocol: 6, state: State::Established as u8, flags: noted, ..Entry::new_zeroed() };
        assert!(entry.is_plain(plain, 7));
        for no_matter in [flags::CONTROLLED, flags::ANSWERED] {
            assert!(Entry { flags: noted | no_matter, ..entry }.is_plain(plain, 7));
        }
        let others = [
            Entry { ports: 8, ..entry },
            Entry { protocol: 17, ..entry },
            Entry { protocol: 6 | TEMPLATE, ..entry },
            Entry { state: State::FinWait as u8, ..entry },
            Entry { flags: flags::LIVE, ..entry },
            Entry { flags: flags::NO_OUTPUT, ..entry },
            Entry { flags: noted | flags::V6, ..entry },
            Entry { flags: noted | flags::TENTATIVE, ..entry },
            Entry { flags: noted | flags::MASQUERADED, ..entry },
            Entry { flags: noted | flags::TUNNELLED, ..entry },
        ];
        assert!(others.iter().all(|other| !other.is_plain(plain, 7)));
        assert!(others[6].is_plain(Plain::new(Protocol::Tcp, State::Established, Method::DirectRouting, false), 7));
    }

    #[test]
    fn vport_is_changed_alone() {
        let mut entry = Entry { ports: u32::from_le_bytes([0x27, 0x10, 0, 80]), ..Entry::new_zeroed() };
        assert_eq!(entry.virtual_port(), 80);
        entry.set_virtual_port(0xfffe);
        assert_eq!((entry.virtual_port(), entry.ports.to_le_bytes()), (0xfffe, [0x27, 0x10, 0xff, 0xfe]));
    }

    #[test]
    fn tcp_template_counts_as_half_open_until_it_is_assured() {
        let template = Entry { protocol: TEMPLATE | 6, ..Entry::new_zeroed() };
        assert!(template.is_template() && template.is_half_open() && !template.counts_as_active());
        assert_eq!(template.state_name(), "NONE");
        let assured = Entry { flags: flags::ASSURED, ..template };
        assert!(!assured.is_half_open());
        assert_eq!(assured.state_name(), "ASSURED");
        let by_mark = Entry { protocol: TEMPLATE, ..template };
        assert!(by_mark.is_template() && by_mark.is_half_open());
        let udp = Entry { protocol: TEMPLATE | 0x11, flags: flags::NO_HANDSHAKE, ..template };
        assert!(!udp.is_half_open());
        assert_eq!(udp.state_name(), "NONE");
    }

    #[test]
    fn udp_entry_has_one_state_and_is_inactive() {
        let entry = Entry { protocol: 17, ..Entry::new_zeroed() };
        assert_eq!(entry.state_name(), "UDP");
        assert!(!entry.counts_as_active() && !entry.is_half_open());
        let entry = Entry { protocol: 6, state: State::SynRecv as u8, ..Entry::new_zeroed() };
        assert_eq!(entry.state_name(), "SYN_RECV");
        assert!(entry.counts_as_active() && entry.is_half_open());
    }
}
