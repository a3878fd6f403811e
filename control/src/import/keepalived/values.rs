//! Values of statements.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use super::tree::Statement;
use crate::import::report::Report;
use crate::model::{Method, Persistence, Span, Tunnel, TunnelChecksum, TunnelType};

/// The only value of a statement; a remark when there is none, or more than one.
pub(super) fn only<'s>(statement: &'s Statement, report: &mut Report) -> Option<&'s str> {
    if let [value] = statement.rest() {
        return Some(value);
    }
    report.left(&statement.at, format_args!("{} takes one value", statement.name()));
    None
}

/// The only value of a statement, read as `T`; a remark when it is none.
pub(super) fn read<T: FromStr>(statement: &Statement, expected: &str, report: &mut Report) -> Option<T> {
    let value = only(statement, report)?.parse().ok();
    if value.is_none() {
        report.left(&statement.at, format_args!("expected {expected}"));
    }
    value
}

/// A whole number.
pub(super) fn number(statement: &Statement, report: &mut Report) -> Option<u32> {
    read(statement, "a whole number that is not negative", report)
}

/// A port.
pub(super) fn port(statement: &Statement, report: &mut Report) -> Option<u16> {
    read(statement, "a port from 0 to 65535", report)
}

/// Seconds, with a fraction or without.
pub(super) fn timer(statement: &Statement, report: &mut Report) -> Option<Span> {
    let span = only(statement, report).and_then(seconds);
    if span.is_none() {
        report.left(&statement.at, "expected seconds, such as 3 or 0.5");
    }
    span
}

/// Decimal seconds to the millisecond.
fn seconds(text: &str) -> Option<Span> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let milliseconds: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = whole.parse().ok()?;
    Some(Span(Duration::from_millis(whole.checked_mul(1_000)?.checked_add(milliseconds.parse().ok()?)?)))
}

/// Whether something is on: without a value it is.
pub(super) fn switch(statement: &Statement, report: &mut Report) -> bool {
    match statement.rest() {
        [] => true,
        [value] if matches!(value.as_str(), "on" | "true" | "yes") => true,
        [value] if matches!(value.as_str(), "off" | "false" | "no") => false,
        _ => {
            report.left(&statement.at, "expected on or off, true or false, yes or no, or nothing");
            false
        }
    }
}

/// A forwarding method with its tunnel.
pub(super) fn method(statement: &Statement, report: &mut Report) -> Option<(Method, Option<Tunnel>)> {
    let words: Vec<&str> = statement.rest().iter().map(String::as_str).collect();
    let found = match words.as_slice() {
        ["NAT"] => Some((Method::Masquerading, None)),
        ["DR"] => Some((Method::DirectRouting, None)),
        ["TUN"] => Some((Method::Tunnel, None)),
        ["TUN", options @ ..] => tunnel(options).map(|tunnel| (Method::Tunnel, Some(tunnel))),
        _ => None,
    };
    if found.is_none() {
        report.left(&statement.at, "expected NAT, DR, or TUN [type ipip|gue port NUM|gre] [nocsum|csum|remcsum]");
    }
    found
}

fn tunnel(options: &[&str]) -> Option<Tunnel> {
    let mut tunnel = Tunnel::default();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match *option {
            "type" => {
                tunnel.kind = match *rest.next()? {
                    "ipip" => TunnelType::Ipip,
                    "gue" => TunnelType::Gue,
                    "gre" => TunnelType::Gre,
                    _ => return None,
                };
            }
            "port" => tunnel.port = Some(rest.next()?.parse().ok()?),
            "nocsum" => tunnel.checksum = TunnelChecksum::None,
            "csum" => tunnel.checksum = TunnelChecksum::Whole,
            "remcsum" => tunnel.checksum = TunnelChecksum::Remote,
            _ => return None,
        }
    }
    Some(tunnel)
}

/// Persistence with a mask: an IPv4 netmask, or the length of an IPv6 prefix.
pub(in crate::import) fn granularity(text: &str, timeout: u32) -> Option<Persistence> {
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let ones = mask.to_bits().leading_ones();
        let without_gaps = ones == mask.to_bits().count_ones();
        let prefix = u8::try_from(ones).ok().filter(|ones| without_gaps && *ones < 32);
        return Some(Persistence { timeout, prefix, netmask: (!without_gaps).then_some(mask) });
    }
    let prefix = text.parse().ok().filter(|prefix| (1..=128).contains(prefix))?;
    Some(Persistence { timeout, prefix: (prefix < 128).then_some(prefix), netmask: None })
}

/// `ADDRESS [PORT]`.
pub(super) fn address_port(words: &[String]) -> Option<(IpAddr, Option<u16>)> {
    match words {
        [address] => Some((address.parse().ok()?, None)),
        [address, port] => Some((address.parse().ok()?, Some(port.parse().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_fractions() {
        for (text, shown) in
            [("3", "3s"), ("0.5", "500ms"), ("2.71828", "2718ms"), ("60", "1m"), ("1.", ""), (".5", ""), ("-1", ""), ("1s", "")]
        {
            assert_eq!(seconds(text).map(|span| span.to_string()).unwrap_or_default(), shown, "{text}");
        }
        assert_eq!(seconds("99999999999999999999"), None);
    }

    #[test]
    fn granularity_is_a_prefix_unless_it_has_gaps() {
        let show = |text: &str| granularity(text, 50).map(|found| (found.prefix, found.netmask.map(|mask| mask.to_string())));
        assert_eq!(show("255.255.255.0"), Some((Some(24), None)));
        assert_eq!(show("255.255.255.255"), Some((None, None)));
        assert_eq!(show("255.0.255.0"), Some((None, Some("255.0.255.0".to_owned()))));
        assert_eq!((show("64"), show("128"), show("129")), (Some((Some(64), None)), Some((None, None)), None));
    }
}
