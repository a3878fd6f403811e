//! A connection entry: one cache line that says everything about one connection.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Address;
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
    /// Masqueraded: replies find it by the index of replies. Set by the table alone.
    pub const MASQUERADED: u16 = 1 << 14;
}

/// Set in [`Entry::protocol`] and [`Key::protocol`] of a persistence template, beside the IP protocol number: no packet has
/// such a protocol, so no packet finds a template.
pub const TEMPLATE: u8 = 1 << 6;

/// A connection as the director remembers it, or a persistence template, which remembers the real server of a client: 64 bytes, aligned to a cache line, no padding, every bit pattern valid.
///
/// The bytes may lie in memory that outlives the process; nothing in them is trusted to index anything but the wheel's
/// links, which [`ConnectionTable::rebuild_index`](crate::connection::ConnectionTable::rebuild_index) makes anew.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Entry {
    /// CIP, as [`Address`] holds it.
    pub client: u128,
    /// VIP, as [`Address`] holds it.
    pub virtual_: u128,
    /// vport.
    pub virtual_port: u16,
    /// cport.
    pub client_port: u16,
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
    /// The next entry in its slot of the wheel, or in the free list.
    pub(super) next: u32,
    /// The entry before it in its slot of the wheel, or the slot itself.
    pub(super) prev: u32,
    /// Packets from the client; wraps. Of a template: how many connections it controls.
    pub in_packets: u32,
}

impl Entry {
    /// What packets of this connection are found by.
    #[inline]
    pub const fn key(&self) -> Key {
        Key {
            client: Address(self.client),
            virtual_: Address(self.virtual_),
            client_port: self.client_port,
            virtual_port: self.virtual_port,
            protocol: self.protocol,
        }
    }

    /// Whether `key` is this entry's key.
    #[inline]
    pub fn has_key(&self, key: &Key) -> bool {
        let addresses = (self.client ^ key.client.0) | (self.virtual_ ^ key.virtual_.0);
        // Neighbours in memory: read and compared as one word.
        let ports = u32::from(self.client_port) << 16 | u32::from(self.virtual_port);
        addresses == 0 && ports == key.ports() && self.protocol == key.protocol
    }

    /// Whether it is a connection in this state by direct routing, whose packets only need to be sent on and counted: nothing but a
    /// template's control is noted about it. Cost: one load and one comparison.
    #[inline(always)]
    pub const fn is_plain(&self, protocol: Protocol, state: State) -> bool {
        const NOTED: u32 = ((flags::LIVE | flags::NO_OUTPUT) as u32) << 16;
        let word = self.protocol as u32 | (self.state as u32) << 8 | (self.flags as u32) << 16;
        word & !((flags::CONTROLLED as u32) << 16) == protocol as u32 | (state as u32) << 8 | NOTED
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
    fn entry_is_one_cache_line() {
        assert_eq!(size_of::<Entry>(), 64);
        assert_eq!(align_of::<Entry>(), 64);
    }

    #[test]
    fn entry_differs_from_a_key_in_any_field() {
        let entry = Entry { client: 1, virtual_: 2, client_port: 3, virtual_port: 4, protocol: 6, ..Entry::new_zeroed() };
        let key = entry.key();
        assert!(entry.has_key(&key));
        let others = [
            Key { client: Address(1 | 1 << 127), ..key },
            Key { virtual_: Address(1), ..key },
            Key { client_port: 0, ..key },
            Key { virtual_port: 5, ..key },
            Key { protocol: 17, ..key },
        ];
        assert!(others.iter().all(|other| !entry.has_key(other)));
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
