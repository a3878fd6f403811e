//! One address form for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in 16 bytes, so that keys of both families have one shape.
///
/// IPv4 is held as its IPv4-mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2); such addresses are refused on the
/// wire as IPv6 sources, so the two families never meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address(pub u128);

const MAPPED: u128 = 0xffff_0000_0000;

impl Address {
    /// The address `a.b.c.d` given as the number read from the wire in network order.
    #[inline]
    pub const fn v4(bits: u32) -> Self {
        Self(MAPPED | bits as u128)
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == MAPPED >> 32
    }

    /// The IPv4 address as a number in host order, if it is one.
    #[inline]
    pub fn as_v4(self) -> Option<u32> {
        // The low half of a mapped address is the whole IPv4 address: nothing is cut off.
        self.is_v4().then(|| u32::try_from(self.0 & 0xffff_ffff).unwrap_or_default())
    }

    /// The standard library's form, for listings.
    pub fn ip(self) -> IpAddr {
        self.as_v4().map_or_else(|| IpAddr::V6(Ipv6Addr::from_bits(self.0)), |v4| IpAddr::V4(Ipv4Addr::from_bits(v4)))
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits()),
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ip().fmt(f)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ip().fmt(f)
    }
}
