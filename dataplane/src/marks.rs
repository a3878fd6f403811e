//! Marks: which first packets belong to services by mark (ipvsadm(8), `-f`), by rules of our own.
//!
//! A packet of a known connection is never looked at: its entry decides.

use crate::address::Address;
use crate::connection::Key;
use crate::service::Protocol;

/// A set of addresses of one family that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    address: Address,
    mask: u128,
}

impl Prefix {
    /// The addresses whose first `bits` are those of `address`: 0 to 32 bits of an IPv4 address, 0 to 128 of an IPv6 one.
    pub fn new(address: Address, bits: u8) -> Self {
        let whole = if address.is_v4() { 32_u8 } else { 128 };
        let mask = u128::MAX.checked_shl(whole.saturating_sub(bits).into()).unwrap_or_default();
        // The mapped form's own bits stay, so that an IPv4 prefix of no bits is still one of IPv4.
        let mask = if address.is_v4() { mask | u128::MAX << 32 } else { mask };
        Self { address: Address(address.0 & mask), mask }
    }

    /// Whether it holds `address`. An IPv6 prefix holds no IPv4 address, however short it is.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        address.0 & self.mask == self.address.0 && address.is_v4() == self.address.is_v4()
    }
}

/// A rule that gives packets a mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkRule {
    /// Where the packet goes.
    pub destination: Prefix,
    /// Where it comes from, if that matters.
    pub source: Option<Prefix>,
    /// Its protocol, if that matters; never [`Protocol::Ip`].
    pub protocol: Option<Protocol>,
    /// The destination ports, first and last of each range; empty for all.
    pub ports: Box<[(u16, u16)]>,
    /// The mark; not 0.
    pub mark: u32,
}

impl MarkRule {
    #[inline]
    fn matches(&self, key: &Key) -> bool {
        self.destination.contains(key.virtual_)
            && self.protocol.is_none_or(|protocol| protocol as u8 == key.protocol)
            && self.source.is_none_or(|source| source.contains(key.client))
            && (self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&key.virtual_port)))
    }
}

/// All mark rules, in order: the first one that matches a packet gives its mark.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks(Box<[MarkRule]>);

impl Marks {
    /// These rules.
    pub fn new(rules: Vec<MarkRule>) -> Self {
        Self(rules.into_boxed_slice())
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mark of a packet; `None` when no rule matches. Cost: linear in the rules before the one that matches.
    pub fn of(&self, key: &Key) -> Option<u32> {
        self.0.iter().find(|rule| rule.matches(key)).map(|rule| rule.mark)
    }

    /// Whether any rule is about packets to this address. Cost: linear in the rules.
    pub fn cover(&self, destination: Address) -> bool {
        self.0.iter().any(|rule| rule.destination.contains(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn rule(mark: u32, destination: &str, bits: u8, ports: &[(u16, u16)]) -> MarkRule {
        MarkRule { destination: Prefix::new(address(destination), bits), source: None, protocol: None, ports: ports.into(), mark }
    }

    fn key(client: &str, virtual_: &str, virtual_port: u16, protocol: Protocol) -> Key {
        Key { client: address(client), virtual_: address(virtual_), client_port: 1000, virtual_port, protocol: protocol as u8 }
    }

    #[test]
    fn prefix_holds_its_own_family_only() {
        for (text, bits, inside, outside) in [
            ("10.10.24.88", 32, "10.10.24.88", "10.10.24.89"),
            ("10.10.24.88", 24, "10.10.24.1", "10.10.25.88"),
            ("0.0.0.0", 0, "255.1.2.3", "fd00::1"),
            ("::", 0, "fd00::1", "10.10.24.88"),
            ("fd00:10::", 64, "fd00:10::88", "fd00:11::88"),
            ("fd00:10::88", 128, "fd00:10::88", "fd00:10::89"),
        ] {
            let prefix = Prefix::new(address(text), bits);
            assert!(prefix.contains(address(inside)), "{inside} in {text}/{bits}");
            assert!(!prefix.contains(address(outside)), "{outside} not in {text}/{bits}");
        }
    }

    #[test]
    fn first_rule_that_matches_gives_the_mark() {
        let mut udp = rule(3, "10.10.24.88", 32, &[]);
        udp.protocol = Some(Protocol::Udp);
        let mut from = rule(4, "0.0.0.0", 0, &[]);
        from.source = Some(Prefix::new(address("198.51.100.0"), 24));
        let marks =
            Marks::new(vec![rule(1, "10.10.24.88", 32, &[(80, 80), (443, 443)]), rule(2, "10.10.24.0", 24, &[(8000, 8999)]), udp, from]);
        let mark = |client, virtual_, port, protocol| marks.of(&key(client, virtual_, port, protocol));
        assert_eq!(mark("203.0.113.1", "10.10.24.88", 443, Protocol::Tcp), Some(1));
        assert_eq!(mark("203.0.113.1", "10.10.24.88", 8000, Protocol::Tcp), Some(2));
        assert_eq!(mark("203.0.113.1", "10.10.24.88", 8999, Protocol::Udp), Some(2));
        assert_eq!(mark("203.0.113.1", "10.10.24.88", 9000, Protocol::Udp), Some(3));
        assert_eq!(mark("203.0.113.1", "10.10.24.88", 9000, Protocol::Tcp), None);
        assert_eq!(mark("198.51.100.7", "10.10.24.88", 9000, Protocol::Tcp), Some(4));
        assert_eq!(mark("fd00::1", "fd00::2", 80, Protocol::Tcp), None);
        assert!(marks.cover(address("10.10.24.200")) && !marks.cover(address("fd00::2")));
    }
}
