//! Names of services and hosts from /etc/services and /etc/hosts. No name server is ever asked for the name of an
//! address, so a listing cannot hang.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;

use crate::model::Protocol;

/// What services(5) and hosts(5) say.
#[derive(Debug, Default)]
pub struct Names {
    ports: HashMap<(String, Protocol), u16>,
    services: HashMap<(u16, Protocol), String>,
    hosts: HashMap<IpAddr, String>,
}

impl Names {
    /// The machine's own files; a file that cannot be read has no names.
    pub fn system() -> Self {
        Self::from_texts(&fs::read_to_string("/etc/services").unwrap_or_default(), &fs::read_to_string("/etc/hosts").unwrap_or_default())
    }

    /// Reads both files' texts; the first entry for a port or an address wins.
    pub fn from_texts(services: &str, hosts: &str) -> Self {
        let mut names = Self::default();
        for line in services.lines() {
            let mut words = words(line);
            let (Some(name), Some((port, protocol))) = (words.next(), words.next().and_then(port_protocol)) else { continue };
            names.services.entry((port, protocol)).or_insert_with(|| name.to_owned());
            for name in std::iter::once(name).chain(words) {
                names.ports.entry((name.to_owned(), protocol)).or_insert(port);
            }
        }
        for line in hosts.lines() {
            let mut words = words(line);
            if let (Some(Ok(address)), Some(name)) = (words.next().map(str::parse), words.next()) {
                names.hosts.entry(address).or_insert_with(|| name.to_owned());
            }
        }
        names
    }

    /// The port of a service by name or alias; with a mark, of any protocol.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let find = |protocol| self.ports.get(&(name.to_owned(), protocol)).copied();
        if protocol == Protocol::Mark { find(Protocol::Tcp).or_else(|| find(Protocol::Udp)) } else { find(protocol) }
    }

    /// `host:service`, a number in place of each that has no name; IPv6 in brackets.
    pub fn address_port(&self, address: IpAddr, port: u16, protocol: Protocol) -> String {
        let host = self.hosts.get(&address).cloned().unwrap_or_else(|| address.to_string());
        let find = |protocol| self.services.get(&(port, protocol)).cloned();
        let any = || find(Protocol::Tcp).or_else(|| find(Protocol::Udp));
        let service = if protocol == Protocol::Mark { any() } else { find(protocol) }.unwrap_or_else(|| port.to_string());
        if address.is_ipv6() { format!("[{host}]:{service}") } else { format!("{host}:{service}") }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split('#').next().unwrap_or_default().split_whitespace()
}

fn port_protocol(word: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = word.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some((port.parse().ok()?, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_files_and_numbers_stay_where_there_are_none() {
        let names =
            Names::from_texts("# c\nhttp\t80/tcp www # web\nhttp 80/sctp\nother 80/tcp\n", "10.0.0.1 web web.example\n::1 me\nbad line\n");
        let show = |address: &str, port, protocol| names.address_port(address.parse().unwrap(), port, protocol);
        assert_eq!(show("10.0.0.1", 80, Protocol::Tcp), "web:http");
        assert_eq!(show("10.0.0.2", 80, Protocol::Udp), "10.0.0.2:80");
        assert_eq!(show("::1", 80, Protocol::Tcp), "[me]:http");
        assert_eq!(names.port("other", Protocol::Tcp), Some(80));
        assert_eq!((show("10.0.0.2", 80, Protocol::Sctp), names.port("www", Protocol::Sctp)), ("10.0.0.2:http".to_owned(), None));
    }
}
