//! Addresses, ports and numbers as ipvsadm reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use super::names::Names;
use crate::model::Protocol;

/// An address with the port, where one was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressPort {
    /// The address.
    pub address: IpAddr,
    /// The port; `None` when the text has none.
    pub port: Option<u16>,
}

/// Reads `host[:port]`: an IPv4 address in any form of `inet_aton(3)`, an IPv6 address (in brackets when a port follows)
/// or a host's name; the port a number or a service's name. `None` for anything else.
pub fn address_port(text: &str, protocol: Protocol, names: &Names) -> Option<AddressPort> {
    if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(AddressPort { address: address.into(), port: None });
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once("]:")?;
            (IpAddr::V6(host.parse().ok()?), Some(port))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (self::host(host)?, Some(port)),
            None => (self::host(text)?, None),
        },
    };
    let port = match port {
        None => None,
        Some(port) => Some(port_number(port).or_else(|| names.port(port, protocol))?),
    };
    Some(AddressPort { address: host, port })
}

fn port_number(text: &str) -> Option<u16> {
    u16::try_from(number(text, 0, 65535)?).ok()
}

/// A whole decimal number from `least` to `most`; ipvsadm takes leading blanks and a sign as strtol(3) does.
pub fn number(text: &str, least: i64, most: i64) -> Option<i64> {
    let text = text.trim_start();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| (least..=most).contains(number))
}

fn host(text: &str) -> Option<IpAddr> {
    if let Some(address) = ipv4(text) {
        return Some(address.into());
    }
    // Digits and dots that are no address are no name either: asking a name server would only take time.
    if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    (text, 0).to_socket_addrs().ok()?.map(|socket| socket.ip()).find(IpAddr::is_ipv4)
}

/// Reads an IPv4 address as `inet_aton(3)`: one to four parts, the last one filling what is left, each decimal, octal
/// (leading 0) or hexadecimal (leading 0x).
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(part).collect::<Option<Vec<u32>>>()?;
    let (&last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 255) {
        return None;
    }
    let mut bits = 0u32;
    for (index, &part) in leading.iter().enumerate() {
        bits |= part << (24 - 8 * index);
    }
    let room = u32::MAX.checked_shr(u32::try_from(8 * leading.len()).ok()?)?;
    (last <= room).then(|| Ipv4Addr::from_bits(bits | last))
}

fn part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_addresses_come_in_every_form_of_inet_aton() {
        for (text, expected) in [
            ("10.10.24.88", Some([10, 10, 24, 88])),
            ("10.1", Some([10, 0, 0, 1])),
            ("0x0a0a1858", Some([10, 10, 24, 88])),
            ("010.10.24.88", Some([8, 10, 24, 88])),
            ("1.2.65535", Some([1, 2, 255, 255])),
            ("300.1.1.1", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("1..2", None),
            ("", None),
            ("+1.2.3.4", None),
        ] {
            assert_eq!(ipv4(text), expected.map(Ipv4Addr::from), "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        assert_eq!(number(" +080", 0, 65535), Some(80));
        assert_eq!(number("-1", 0, 10), None);
        assert_eq!(number("-1", -1, 10), Some(-1));
        for text in ["", "+", "0x50", "8 0", "80 ", "99999999999999999999", "+-3"] {
            assert_eq!(number(text, 0, i64::MAX), None, "{text}");
        }
    }

    #[test]
    fn addresses_come_with_and_without_port() {
        let names = Names::from_texts("http 80/tcp www\ndomain 53/udp\n", "");
        let parse = |text| address_port(text, Protocol::Tcp, &names).map(|found| (found.address.to_string(), found.port));
        for (text, address, port) in [
            ("10.10.24.88:80", "10.10.24.88", Some(80)),
            ("10.10.24.88", "10.10.24.88", None),
            ("10.10.24.88:http", "10.10.24.88", Some(80)),
            ("10.10.24.88:www", "10.10.24.88", Some(80)),
            ("[fd00::1]:443", "fd00::1", Some(443)),
            ("fd00::1", "fd00::1", None),
            ("fd00::1:80", "fd00::1:80", None),
        ] {
            assert_eq!(parse(text), Some((address.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            "80",
            ":80",
            "10.10.24.88:",
            "10.10.24.88:HTTP",
            "10.10.24.88:domain",
            "10.10.24.88:65536",
            "300.1.1.1:80",
            "[fd00::1]",
            "[fd00::1:80",
            "[fd00::1]80",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
