//! Marks: the first rule that fits a first packet says which service it is for.

use std::net::IpAddr;

use super::wire::Packet;

/// An address, and how many of its bits count.
pub type Network = (IpAddr, u8);

/// What a packet must be to get the mark; what is `None` or empty does not matter.
#[derive(Clone, Debug)]
pub struct Rule {
    pub destination: Network,
    pub source: Option<Network>,
    pub protocol: Option<u8>,
    pub ports: Vec<(u16, u16)>,
    pub mark: u32,
}

/// The first bits of an address, as text: slow, but there is nothing to get wrong.
fn bits(address: IpAddr, count: u8) -> String {
    let all = match address {
        IpAddr::V4(v4) => format!("4{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("6{:0128b}", v6.to_bits()),
    };
    all[..=usize::from(count)].to_owned()
}

fn holds(network: Network, address: IpAddr) -> bool {
    network.0.is_ipv4() == address.is_ipv4() && bits(network.0, network.1) == bits(address, network.1)
}

impl Rule {
    fn fits(&self, packet: &Packet) -> bool {
        holds(self.destination, packet.destination.ip())
            && self.source.is_none_or(|source| holds(source, packet.source.ip()))
            && self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && (self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&packet.destination.port())))
    }

    /// Whether it is about packets to this address.
    pub fn covers(&self, address: IpAddr) -> bool {
        holds(self.destination, address)
    }
}

/// The mark of a packet.
pub fn mark(rules: &[Rule], packet: &Packet) -> Option<u32> {
    rules.iter().find(|rule| rule.fits(packet)).map(|rule| rule.mark)
}

/// What stands for a mark where a service's VIP would stand.
pub fn address(mark: u32, v4: bool) -> IpAddr {
    if v4 { IpAddr::V4(mark.into()) } else { IpAddr::V6((u128::from(mark) << 96).into()) }
}
