//! The order in which ipvsadm lists services and real servers.
//!
//! It subtracts what it compares as numbers of 32 bits and looks at the difference's sign, so 192.168.11.100 stands before
//! 10.10.24.88: they are more than 2^31 apart. That is no total order, so the result depends on the way of sorting, which is
//! glibc's merge sort, and on the order before.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::model::{Protocol, RealServer, Service};

/// Services: those without a mark first, then by mark, family, protocol, address and port. Cost: n log n comparisons.
pub(super) fn services(services: &[Service]) -> Vec<&Service> {
    let key = |service: &Service| {
        // The mark stands where the address would be, which is nothing to a service by mark.
        let (mark, address) = service.mark.map_or((0, words(service.address)), |mark| (mark, [0; 4]));
        (mark, u32::from(service.address.is_ipv6()), number(service.protocol), address, u32::from(service.port))
    };
    sorted(services.iter().collect(), &|one: &&Service, other: &&Service| {
        let (one, other) = (key(one), key(other));
        by_difference(one.0, other.0)
            .then(by_difference(one.1, other.1))
            .then(by_difference(one.2, other.2))
            .then_with(|| by_words(one.3, other.3))
            .then(by_difference(one.4, other.4))
    })
}

/// Real servers, by address and port. Cost: n log n comparisons.
pub(super) fn real_servers(servers: &[RealServer]) -> Vec<&RealServer> {
    sorted(servers.iter().collect(), &|one: &&RealServer, other: &&RealServer| {
        by_words(words(one.address), words(other.address)).then(by_difference(one.port.into(), other.port.into()))
    })
}

/// An address as four words; an IPv4 address is the first of them.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [v4.to_bits(), 0, 0, 0],
        IpAddr::V6(v6) => [96, 64, 32, 0].map(|shift| u32::try_from(v6.to_bits() >> shift & u128::from(u32::MAX)).unwrap_or_default()),
    }
}

fn number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Mark => 0,
    }
}

fn by_difference(one: u32, other: u32) -> Ordering {
    one.wrapping_sub(other).cast_signed().cmp(&0)
}

fn by_words(one: [u32; 4], other: [u32; 4]) -> Ordering {
    one.iter().zip(other).map(|(one, other)| by_difference(*one, other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Merge sort; what is equal keeps its order. The standard library's sorts may panic over what is no total order.
fn sorted<T: Copy>(items: Vec<T>, compare: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let (left, right) = items.split_at(items.len() / 2);
    let (left, right) = (sorted(left.to_vec(), compare), sorted(right.to_vec(), compare));
    let mut merged = Vec::with_capacity(items.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        merged.extend(if compare(one, other).is_le() { left.next() } else { right.next() });
    }
    merged.extend(left.chain(right));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_by_the_sign_of_their_difference() {
        let order = |addresses: &[&str]| {
            let parsed: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            sorted(parsed, &|one, other| by_words(words(*one), words(*other))).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(order(&["10.10.24.88", "192.168.11.100"]), ["192.168.11.100", "10.10.24.88"]);
        assert_eq!(order(&["10.10.24.88", "10.9.1.1", "127.0.0.1"]), ["10.9.1.1", "10.10.24.88", "127.0.0.1"]);
        assert_eq!(order(&["fd00::2", "fd00::1", "2001:db8::1"]), ["fd00::1", "fd00::2", "2001:db8::1"]);
        // Each of the three stands before another one: as it came out of ipvsadm.
        assert_eq!(order(&["192.168.100.100", "10.0.0.2", "127.0.0.1"]), ["192.168.100.100", "10.0.0.2", "127.0.0.1"]);
    }
}
