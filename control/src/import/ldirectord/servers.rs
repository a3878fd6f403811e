//! `real` and `fallback`.

use std::net::{IpAddr, Ipv4Addr};

use super::Section;
use crate::cli::ipvsadm::address::address_port;
use crate::cli::ipvsadm::names::Names;
use crate::import::report::{Place, Report};
use crate::model::{Method, RealServerSpec, ServiceKey, SorryServer};

/// The most real servers of one range.
const LONGEST_RANGE: u32 = 4_096;

/// A real server with what it is asked.
pub(super) struct Real {
    pub(super) spec: RealServerSpec,
    /// Its port as ldirectord has it.
    pub(super) port: u16,
    pub(super) request: Option<String>,
    pub(super) receive: Option<String>,
    pub(super) at: Place,
}

pub(super) fn real_servers(section: &Section, key: ServiceKey, names: &Names, report: &mut Report) -> Vec<Real> {
    let mut all = Vec::new();
    for directive in &section.reals {
        match read(&directive.value, key, names, &directive.at) {
            Ok(reals) => all.extend(reals),
            Err(reason) => report.left(&directive.at, reason),
        }
    }
    all
}

/// `ADDRESS[->ADDRESS][:PORT] gate|masq|ipip [WEIGHT] ["REQUEST", "RECEIVE"] [<l:LOWER>] [<u:UPPER>]`
fn read(value: &str, key: ServiceKey, names: &Names, at: &Place) -> Result<Vec<Real>, String> {
    let mut words = split(value)?.into_iter();
    let (addresses, port) = addresses(&words.next().unwrap_or_default(), key, names)?;
    let method = words.next().as_deref().and_then(method).ok_or("expected gate, masq or ipip behind the address")?;
    let (mut weight, mut request, mut receive, mut upper, mut lower) = (1, None, None, 0, 0);
    for (index, word) in words.enumerate() {
        let threshold = |name: &str| word.strip_prefix(name).and_then(|rest| rest.strip_suffix('>')).and_then(|number| number.parse().ok());
        if let Some(number) = threshold("<u:") {
            upper = number;
        } else if let Some(number) = threshold("<l:") {
            lower = number;
        } else if let Some(number) = word.parse().ok().filter(|_| index == 0) {
            weight = number;
        } else if request.is_none() {
            request = Some(word);
        } else if receive.is_none() {
            receive = Some(word);
        } else {
            return Err(format!("'{word}' is one word too many"));
        }
    }
    let port = port.unwrap_or(key.port);
    let one = |address| Real {
        spec: RealServerSpec {
            address,
            port: Some(port).filter(|port| *port != key.port && *port != 0),
            weight,
            upper_threshold: upper,
            lower_threshold: lower,
            method,
            tunnel: None,
            mac: None,
            health: None,
        },
        port,
        request: request.clone(),
        receive: receive.clone(),
        at: at.clone(),
    };
    Ok(addresses.into_iter().map(one).collect())
}

fn addresses(text: &str, key: ServiceKey, names: &Names) -> Result<(Vec<IpAddr>, Option<u16>), String> {
    let bad = || format!("'{text}' is no address and no range of addresses, with a port or without");
    let found = |text: &str| {
        let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        address_port(plain, key.protocol, names).ok_or_else(bad)
    };
    let Some((first, last)) = text.split_once("->") else {
        let found = found(text)?;
        return Ok((vec![found.address], found.port));
    };
    let last = found(last)?;
    match (first.parse::<Ipv4Addr>(), last.address) {
        (Ok(first), IpAddr::V4(end)) if end >= first && end.to_bits() - first.to_bits() < LONGEST_RANGE => {
            Ok(((first.to_bits()..=end.to_bits()).map(|bits| Ipv4Addr::from_bits(bits).into()).collect(), last.port))
        }
        (Ok(_), IpAddr::V4(_)) => Err(format!("'{text}': a range goes upwards and has {LONGEST_RANGE} addresses at most")),
        _ => Err(format!("'{text}': a range is one of IPv4 addresses here; name each host")),
    }
}

/// `ADDRESS[:PORT] [gate|masq|ipip]`
pub(super) fn fallback(value: &str, key: ServiceKey, names: &Names) -> Option<SorryServer> {
    let words = split(value).ok()?;
    let (address, way) = match words.as_slice() {
        [address] => (address, Method::DirectRouting),
        [address, way] => (address, method(way)?),
        _ => return None,
    };
    let (addresses, port) = addresses(address, key, names).ok()?;
    let [address] = *addresses.as_slice() else { return None };
    Some(SorryServer { address, port: port.filter(|port| *port != key.port && *port != 0), method: way })
}

fn method(word: &str) -> Option<Method> {
    match word {
        "gate" => Some(Method::DirectRouting),
        "masq" => Some(Method::Masquerading),
        "ipip" => Some(Method::Tunnel),
        _ => None,
    }
}

/// Words at blanks; what is quoted is one, and a comma between two of them is none.
fn split(value: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = value.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (word, behind) = quoted.split_once('"').ok_or("a quoted string does not end")?;
            words.push(word.to_owned());
            rest = behind.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(words)
}
