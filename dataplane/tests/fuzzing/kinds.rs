//! What services and real servers may be like.

use dataplane::address::Address;
use dataplane::service::*;
use dataplane::settings::Timeouts;

use super::choices::Choices;
use super::network::{Network, address};

#[derive(Clone, Debug)]
pub struct Server {
    pub address: Address,
    pub port: u16,
    pub method: Method,
    pub tunnel: Option<Tunnel>,
    pub available: bool,
    pub drain: Drain,
    pub weight: u32,
    pub last_weight: u32,
    pub thresholds: Thresholds,
    pub next_hop: Option<NextHop>,
}

/// What nobody can foretell within a burst: chance, and what is forgotten at some time.
pub const UNFORESEEN: [SchedulerKind; 3] =
    [SchedulerKind::TwoChoices, SchedulerKind::LocalityLeastConnections, SchedulerKind::LocalityReplicated];

pub fn scheduler(c: &mut Choices<'_>, single: bool) -> SchedulerKind {
    if single && c.one_in(5) {
        return c.pick(&UNFORESEEN);
    }
    c.pick(&[
        SchedulerKind::ShortestExpectedDelay,
        SchedulerKind::NeverQueue,
        SchedulerKind::Failover,
        SchedulerKind::Overflow,
        SchedulerKind::DestinationHash,
        SchedulerKind::Maglev { port: false, fallback: false },
        SchedulerKind::Maglev { port: true, fallback: false },
        SchedulerKind::Maglev { port: false, fallback: true },
        SchedulerKind::Maglev { port: true, fallback: true },
        SchedulerKind::RoundRobin,
        SchedulerKind::WeightedRoundRobin,
        SchedulerKind::LeastConnections,
        SchedulerKind::WeightedLeastConnections,
        SchedulerKind::SourceHash { port: false, fallback: false },
        SchedulerKind::SourceHash { port: true, fallback: false },
        SchedulerKind::SourceHash { port: false, fallback: true },
        SchedulerKind::SourceHash { port: true, fallback: true },
    ])
}

pub fn weight(c: &mut Choices<'_>) -> u32 {
    match c.below(12) {
        0..2 => 0,
        2..11 => 1 + c.below(6) as u32,
        _ => c.pick(&[100, 65_535, 1 << 10, (1 << 12) - 1]),
    }
}

pub fn thresholds(c: &mut Choices<'_>) -> Thresholds {
    if !c.one_in(3) {
        return Thresholds::default();
    }
    let upper = 1 + c.below(12) as u32;
    Thresholds { upper, lower: c.below(upper as usize + 1) as u32 }
}

pub fn timeouts(c: &mut Choices<'_>) -> Option<Timeouts> {
    let mut seconds = |usual| if c.one_in(2) { usual } else { c.pick(&[1, 2, 30, 60, 900, 86_400, 2_678_400]) };
    let timeouts = Timeouts { tcp: seconds(900), tcp_fin: seconds(120), udp: seconds(300) };
    c.one_in(3).then_some(timeouts)
}

pub fn persistence(c: &mut Choices<'_>, vip: Address) -> Persistence {
    let bits = if vip.is_v4() { 32 } else { 128 };
    let ignored = c.pick(&[0, 0, 8, 16, bits - 1]);
    Persistence { timeout: c.pick(&[1, 10, 60, 300, 360, 2_678_400]), mask: u128::MAX << ignored }
}

pub fn encapsulation(c: &mut Choices<'_>) -> Encapsulation {
    let checksum = c.one_in(2);
    match c.below(4) {
        0 | 1 => Encapsulation::IpIp,
        2 => Encapsulation::Gue { port: 6080, checksum },
        _ => Encapsulation::Gre { checksum },
    }
}

/// A real server's address of either family.
fn addresses(n: u32) -> [Address; 2] {
    [Address::v4(0x0a0a_1815 + n), Address(address("fd00:10::15").0 + u128::from(n))]
}

/// Its address of the service's family.
fn own_address(key: ServiceKey, n: u32) -> Address {
    addresses(n)[usize::from(!key.address.is_v4())]
}

/// A way to reach a real server, with what belongs to it.
fn method(c: &mut Choices<'_>, key: ServiceKey, n: u32) -> (Method, Address, Option<Tunnel>) {
    let [v4, v6] = addresses(n);
    let own_family = own_address(key, n);
    match c.below(6) {
        0 | 1 => (Method::DirectRouting, own_family, None),
        2 | 3 => (Method::Masquerading, own_family, None),
        4 => {
            let encapsulation = encapsulation(c);
            (Method::Tunnel, v4, (!c.one_in(12)).then(|| Tunnel { source: address("10.10.24.10"), encapsulation }))
        }
        _ => (Method::Tunnel, v6, Some(Tunnel { source: address("fd00:10::10"), encapsulation: encapsulation(c) })),
    }
}

/// A real server, or one that is known and comes back.
pub fn new_server(c: &mut Choices<'_>, network: &Network, key: ServiceKey, n: u32, known: Option<&Server>) -> Server {
    let (method, address, tunnel) = match known {
        Some(old) => (old.method, old.address, old.tunnel),
        None => method(c, key, n),
    };
    let weight = weight(c);
    // What is being drained gets no new connections.
    let drain = if weight == 0 && c.one_in(2) { Drain::Wait } else { Drain::No };
    let rport = if method == Method::Masquerading { c.pick(&[key.port, 8080, 0]) } else { key.port };
    Server {
        last_weight: if weight == 0 { known.map_or(0, |old| old.last_weight) } else { weight },
        address,
        // Of another port it would be another real server.
        port: known.map_or(rport, |old| old.port),
        method,
        tunnel,
        available: true,
        drain,
        weight,
        thresholds: thresholds(c),
        next_hop: network.next_hop(c, n + 100),
    }
}
