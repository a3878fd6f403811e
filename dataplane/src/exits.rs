//! What ways have in common but for the real server's MAC: where packets leave, and how long connections live without one.

use hashbrown::HashMap;

use crate::settings::Timeouts;
use crate::tick::Tick;

/// How many different exits there may be at a time, with that of nobody.
const PLACES: usize = 4096;

/// How long established connections live without a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lifetimes {
    /// Ticks that a TCP connection does.
    pub tcp: u32,
    /// Ticks that a UDP one does.
    pub udp: u32,
}

impl Lifetimes {
    /// What these timeouts say.
    pub const fn of(timeouts: &Timeouts) -> Self {
        Self { tcp: timeouts.tcp * Tick::PER_SECOND, udp: timeouts.udp * Tick::PER_SECOND }
    }
}

/// Where packets to a real server leave, and how long its connections live: half a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C, align(32))]
pub struct Exit {
    /// Our port's MAC: its first two bytes where an Ethernet header's first eight have them, the first one lowest.
    source: u64,
    /// The other four.
    source_left: u32,
    /// How long connections live.
    pub lifetimes: Lifetimes,
    /// The longest IP packet in bytes that may leave here; 0 if none may, because nobody is reached this way.
    pub mtu: u16,
    /// The port that frames leave by.
    pub port: u16,
}

const _: () = assert!(size_of::<Exit>() == 32);

impl Exit {
    /// By a port with this number and MAC.
    pub const fn by(port: u16, source: [u8; 6], mtu: u16) -> Self {
        let [m0, m1, m2, m3, m4, m5] = source;
        let (source, source_left) = (u64::from_le_bytes([0, 0, 0, 0, 0, 0, m0, m1]), u32::from_le_bytes([m2, m3, m4, m5]));
        Self { source, source_left, mtu, port, lifetimes: Lifetimes { tcp: 0, udp: 0 } }
    }

    /// As it is, for connections that live so long.
    #[must_use]
    pub const fn lasting(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// Writes the Ethernet header's addresses, where there is room for them: to the real server with this MAC, in the lower 48 bits, its first
    /// byte lowest. Cost: two stores.
    #[inline(always)]
    pub fn address(&self, frame: &mut [u8], mac: u64) -> Option<()> {
        let header: &mut [u8; 12] = frame.first_chunk_mut()?;
        header[..8].copy_from_slice(&(mac | self.source).to_le_bytes());
        header[8..].copy_from_slice(&self.source_left.to_le_bytes());
        Some(())
    }
}

/// Exits by place; the first place has the one that nobody is reached by.
#[derive(Debug)]
pub struct Exits {
    all: Box<[Exit; PLACES]>,
    users: Box<[u32; PLACES]>,
    places: HashMap<Exit, u16>,
    free: Vec<u16>,
    /// The place that was entered last: mostly the next one is the same.
    latest: u16,
}

impl Default for Exits {
    /// None yet; nothing is allocated later.
    #[expect(clippy::large_stack_arrays, reason = "once, before packets come")]
    fn default() -> Self {
        Self {
            all: Box::new([Exit::default(); PLACES]),
            users: Box::new([0; PLACES]),
            // Twice the room: a hash table that is at most half full never rehashes on the packet path.
            places: HashMap::with_capacity(2 * PLACES),
            free: (1..PLACES).rev().filter_map(|place| u16::try_from(place).ok()).collect(),
            latest: 0,
        }
    }
}

impl Exits {
    /// The exit at a place.
    #[inline(always)]
    pub fn at(&self, place: u16) -> &Exit {
        &self.all[usize::from(place) % PLACES]
    }

    /// The place of an exit that has one user more from now on; `None` where there are too many. Cost: a comparison, or one hash lookup.
    pub fn enter(&mut self, exit: Exit) -> Option<u16> {
        let latest = usize::from(self.latest) % PLACES;
        let place = if self.users[latest] > 0 && self.all[latest] == exit {
            self.latest
        } else {
            self.places.get(&exit).copied().or_else(|| self.free.pop())?
        };
        self.latest = place;
        let at = usize::from(place) % PLACES;
        if self.users[at] == 0 {
            self.all[at] = exit;
            self.places.insert(exit, place);
        }
        self.users[at] += 1;
        Some(place)
    }

    /// The exit at a place has one user less. Cost: one hash lookup if that was the last one.
    pub fn leave(&mut self, place: u16) {
        let at = usize::from(place) % PLACES;
        self.users[at] = self.users[at].saturating_sub(1);
        if self.users[at] == 0 && at != 0 {
            self.places.remove(&self.all[at]);
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 3, 4, 5, 6, 7];

    #[test]
    fn header_begins_with_the_real_servers_mac_and_then_ours() {
        let mut frame = [0xff; 14];
        let mac = u64::from_le_bytes([0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0, 0]);
        assert_eq!(Exit::by(0, MAC, 1500).address(&mut frame, mac), Some(()));
        assert_eq!(frame, [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 2, 3, 4, 5, 6, 7, 0xff, 0xff]);
        assert_eq!(Exit::by(0, MAC, 1500).address(&mut [0; 11], mac), None);
    }

    #[test]
    fn equal_exits_have_one_place_as_long_as_anybody_uses_it() {
        let mut exits = Exits::default();
        let (one, other) = (Exit::by(1, MAC, 1500), Exit::by(2, MAC, 1500));
        let place = exits.enter(one).unwrap();
        assert_eq!(exits.enter(one), Some(place));
        let elsewhere = exits.enter(other).unwrap();
        assert_ne!(elsewhere, place);
        exits.leave(place);
        assert_eq!((exits.at(place), exits.at(elsewhere)), (&one, &other));
        exits.leave(place);
        assert_eq!(exits.enter(Exit::by(3, MAC, 1500)), Some(place), "the place is free again");
        assert_eq!(exits.at(0).mtu, 0, "nobody is reached by the first one");
    }

    #[test]
    fn there_is_room_for_4095_different_exits() {
        let mut exits = Exits::default();
        let exit = |port| Exit::by(port, MAC, 1500);
        assert!((0..4095).all(|port| exits.enter(exit(port)).is_some()));
        assert_eq!(exits.enter(exit(4095)), None);
        assert!(exits.enter(exit(7)).is_some());
        // What nobody uses gives no room either.
        exits.leave(0);
        assert_eq!((exits.enter(exit(4095)), exits.at(0)), (None, &Exit::default()));
    }
}
