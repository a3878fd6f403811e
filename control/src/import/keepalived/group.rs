//! `virtual_server_group`: the addresses and marks that virtual servers are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::tree::Statement;
use crate::import::draft::MOST_SERVICES;
use crate::import::report::{Place, Report};

/// What a virtual server is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// A VIP and a vport; 0 for all.
    Address(IpAddr, u16),
    /// A mark, and whether of IPv6, where that is said.
    Mark(u32, Option<bool>),
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    at: Place,
    /// Its members, each with its line.
    pub(super) members: Vec<(Target, Place)>,
}

impl Group {
    pub(super) fn leave_out(&self, reason: &str, report: &mut Report) {
        report.left(&self.at, reason);
        for (_, at) in &self.members {
            report.left(at, reason);
        }
    }
}

pub(super) fn read(block: &Statement, report: &mut Report) -> Group {
    let mut members = Vec::new();
    for statement in block.inside() {
        let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
        let targets = match words.as_slice() {
            ["fwmark", mark] => mark_target(mark, None),
            ["fwmark", mark, family @ ("inet" | "inet6")] => mark_target(mark, Some(*family == "inet6")),
            [addresses] => range(addresses, 0),
            [addresses, port] => port.parse().map_err(|_| "expected a port".to_owned()).and_then(|port| range(addresses, port)),
            _ => Err("expected an address or a range with a port, or fwmark with a mark".to_owned()),
        };
        match targets {
            Ok(targets) if members.len() + targets.len() > MOST_SERVICES => {
                report.left(&statement.at, format_args!("a group of more than {MOST_SERVICES} virtual services"));
            }
            Ok(targets) => members.extend(targets.into_iter().map(|target| (target, statement.at.clone()))),
            Err(reason) => report.left(&statement.at, reason),
        }
        for inner in statement.inside() {
            inner.leave_out("nothing in a group has a block", report);
        }
    }
    Group { at: block.at.clone(), members }
}

fn mark_target(mark: &str, ipv6: Option<bool>) -> Result<Vec<Target>, String> {
    let mark = mark.parse().ok().filter(|mark| *mark > 0);
    mark.map(|mark| vec![Target::Mark(mark, ipv6)]).ok_or_else(|| "expected a mark, 1 to 4294967295".to_owned())
}

/// `10.0.0.1`, `10.0.0.1-9`, `10.0.0.250-10.0.1.10`, `10.0.0.8/29`, and the same of IPv6, where the last part is hexadecimal.
fn range(text: &str, port: u16) -> Result<Vec<Target>, String> {
    let bad = || format!("'{text}' is no address and no range of addresses");
    let (first, last) = if let Ok(network) = text.parse::<IpNet>() {
        (network.network(), network.broadcast())
    } else if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().map_err(|_| bad())?;
        (first, end(first, last).ok_or_else(bad)?)
    } else {
        let address = text.parse().map_err(|_| bad())?;
        (address, address)
    };
    let (first, last, of): (u128, u128, fn(u128) -> IpAddr) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (first.to_bits().into(), last.to_bits().into(), |bits| Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()).into())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits(), last.to_bits(), |bits| Ipv6Addr::from_bits(bits).into()),
        _ => return Err(bad()),
    };
    let count = last.checked_sub(first).ok_or_else(bad)?;
    if count >= MOST_SERVICES as u128 {
        return Err(format!("'{text}' has more than {MOST_SERVICES} addresses"));
    }
    Ok((first..=last).map(|bits| Target::Address(of(bits), port)).collect())
}

/// The end of a range: a whole address, or its last part.
fn end(first: IpAddr, last: &str) -> Option<IpAddr> {
    if let Ok(whole) = last.parse() {
        return Some(whole);
    }
    match first {
        IpAddr::V4(v4) => Some(Ipv4Addr::from_bits(v4.to_bits() & !0xff | u32::from(last.parse::<u8>().ok()?)).into()),
        IpAddr::V6(v6) => Some(Ipv6Addr::from_bits(v6.to_bits() & !0xffff | u128::from(u16::from_str_radix(last, 16).ok()?)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_every_form_of_keepaliveds() {
        for (text, first, last, count) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.1", 1),
            ("192.168.200.1-10", "192.168.200.1", "192.168.200.10", 10),
            ("192.168.200.250-192.168.201.10", "192.168.200.250", "192.168.201.10", 17),
            ("192.168.202.8/29", "192.168.202.8", "192.168.202.15", 8),
            ("ae00::2-9", "ae00::2", "ae00::9", 8),
            ("ae00::2-1f", "ae00::2", "ae00::1f", 30),
        ] {
            let found = range(text, 80).unwrap();
            let shown: Vec<String> = found.iter().map(|target| format!("{target:?}")).collect();
            let wanted = |address| format!("{:?}", Target::Address(str::parse(address).unwrap(), 80));
            assert_eq!((shown.first(), shown.last(), shown.len()), (Some(&wanted(first)), Some(&wanted(last)), count), "{text}");
        }
        for text in ["", "10.0.0", "10.0.0.9-1", "10.0.0.1-300", "10.0.0.0/8", "ae00::/64", "10.0.0.1-ae00::1", "a-b"] {
            assert!(range(text, 80).is_err(), "{text}");
        }
    }
}
