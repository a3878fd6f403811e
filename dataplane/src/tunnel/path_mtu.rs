//! What routers said about how long a packet may be on its way to a real server (RFC 1191, RFC 8201).

use crate::address::Address;
use crate::tick::Tick;

/// Real servers that are remembered; two whose addresses fall into one place take turns.
const PLACES: usize = 1024;
/// Seconds that a path's MTU is believed, as in the kernel (`mtu_expires`, RFC 1191 section 6.3).
const LIFETIME: u32 = 600;
/// The least that is believed for IPv4, as in the kernel (`min_pmtu`): a lie can cost speed, but not everything.
const LEAST_V4: u16 = 552;
/// The least that there is for IPv6 (RFC 8200 section 5).
const LEAST_V6: u16 = 1280;

#[derive(Clone, Copy, Debug)]
struct Path {
    server: Address,
    mtu: u16,
    until: Tick,
}

/// Path MTUs by RIP: 1024 places, 48 KiB a worker.
#[derive(Debug)]
pub struct PathMtus {
    places: Box<[Option<Path>]>,
    /// Whether any was ever learned, so that a worker that never did looks nowhere.
    any: bool,
}

impl Default for PathMtus {
    fn default() -> Self {
        Self::new()
    }
}

impl PathMtus {
    /// None learned yet.
    pub fn new() -> Self {
        Self { places: vec![None; PLACES].into(), any: false }
    }

    /// The most bytes that reach `server` by a link that takes `mtu`. Cost: one branch before anything was learned, else one line.
    #[inline]
    pub fn towards(&mut self, server: Address, mtu: u16, now: Tick) -> u16 {
        if !self.any {
            return mtu;
        }
        let Some(known) = self.places.get_mut(place(server)) else { return mtu };
        if known.is_some_and(|path| now.has_reached(path.until)) {
            *known = None;
        }
        known.filter(|path| path.server == server).map_or(mtu, |path| path.mtu.min(mtu))
    }

    /// Notes that only `mtu` bytes reach `server`; `false` for what no link may claim.
    pub fn learn(&mut self, server: Address, mtu: u16, now: Tick) -> bool {
        let mtu = if server.is_v4() { mtu.max(LEAST_V4) } else { mtu };
        if !server.is_v4() && mtu < LEAST_V6 {
            return false;
        }
        if let Some(path) = self.places.get_mut(place(server)) {
            *path = Some(Path { server, mtu, until: now.after_seconds(LIFETIME) });
            self.any = true;
        }
        true
    }
}

fn place(server: Address) -> usize {
    let [.., high, low] = (server.0 ^ server.0 >> 16 ^ server.0 >> 64).to_be_bytes();
    usize::from(u16::from_be_bytes([high, low])) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIP: Address = Address::v4(0xc000_0207);
    const RIP6: Address = Address(0x2001_0db8 << 96 | 7);

    fn at(seconds: u32) -> Tick {
        Tick(u32::MAX - 50).after_seconds(seconds)
    }

    #[test]
    fn a_path_is_as_short_as_a_router_said_for_ten_minutes() {
        let mut paths = PathMtus::new();
        assert_eq!(paths.towards(RIP, 1500, at(0)), 1500);
        assert!(paths.learn(RIP, 1400, at(0)));
        assert_eq!([paths.towards(RIP, 1500, at(599)), paths.towards(RIP, 1500, at(601))], [1400, 1500]);
        assert_eq!(paths.towards(RIP, 1300, at(1)), 1300, "the link itself may be shorter");
        assert_eq!(paths.towards(Address::v4(0xc000_0208), 1500, at(1)), 1500, "another real server");
    }

    #[test]
    fn what_no_link_may_claim_is_not_believed() {
        let mut paths = PathMtus::new();
        assert!(paths.learn(RIP, 68, at(0)));
        assert_eq!(paths.towards(RIP, 1500, at(0)), 552);
        assert!(!paths.learn(RIP6, 1279, at(0)));
        assert_eq!(paths.towards(RIP6, 1500, at(0)), 1500);
        assert!(paths.learn(RIP6, 1280, at(0)));
        assert_eq!(paths.towards(RIP6, 1500, at(0)), 1280);
    }
}
