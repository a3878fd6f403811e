//! Mark rules as users describe them: which packets have which mark, so that services by mark can be for them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{PartialSchema, ToSchema};

use super::Protocol;

/// An address, or a network in prefix notation: `10.10.24.88`, `10.10.24.0/24`, `fd00:10::/64`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network(pub IpNet);

impl Network {
    /// How one is written.
    pub const EXPECTED: &'static str = "an address or a network, such as \"10.10.24.88\" or \"10.10.24.0/24\"";

    /// The only address that it has, if there is just one.
    pub fn host(&self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("'{text}': expected {}", Self::EXPECTED))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host() {
            Some(host) => host.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// A port, or a range of ports with both ends: `80`, `8000-8999`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last one; not below the first.
    pub last: u16,
}

impl PortRange {
    /// How one is written.
    pub const EXPECTED: &'static str = "a port, 1 to 65535, or a range of them such as \"8000-8999\"";
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("'{text}': expected {}", Self::EXPECTED)),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last { to.serialize_u16(self.first) } else { to.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PortRange::EXPECTED)
            }

            fn visit_u64<E: serde::de::Error>(self, port: u64) -> Result<PortRange, E> {
                port.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl PartialSchema for PortRange {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let port = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(65535));
        let range = ObjectBuilder::new().schema_type(Type::String).examples([serde_json::json!("8000-8999")]);
        OneOfBuilder::new().item(port).item(range).description(Some("A port, or a range of ports with both ends.")).into()
    }
}

impl ToSchema for PortRange {}

/// A rule that gives packets a mark; the first rule that matches counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkRule {
    /// The mark, 1 to 4294967295: what `ipvsadm -f` takes.
    #[schema(minimum = 1)]
    pub mark: u32,
    /// Where packets go: a single address, which becomes a VIP, or a network, which must be routed to the director.
    #[schema(value_type = String, example = "10.10.24.88")]
    pub destination: Network,
    /// Where packets come from: an address or a network; anywhere when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "198.51.100.0/24")]
    pub source: Option<Network>,
    /// `tcp`, `udp` or `sctp`; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The destination ports, at most 16 ports or ranges; all when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
}

/// All mark rules, in the order in which packets meet them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkRules {
    /// The rules: at most 256.
    pub marks: Vec<MarkRule>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_ports_are_read_and_written_alike() {
        for text in ["10.10.24.88", "10.10.24.0/24", "0.0.0.0/0", "fd00:10::88", "fd00:10::/64"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("10.10.24.88/32".parse::<Network>().unwrap().to_string(), "10.10.24.88");
        for text in ["", "10.10.24", "10.10.24.0/33", "web"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        for json in ["80", "\"8000-8999\""] {
            let range: PortRange = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&range).unwrap(), json);
        }
        for json in ["0", "65536", "-1", "\"\"", "\"1-\"", "\"9-8\"", "\"0-8\"", "\"+1\"", "\"1-2-3\"", "true"] {
            let refused = serde_json::from_str::<PortRange>(json).unwrap_err().to_string();
            assert!(refused.contains("a port, 1 to 65535"), "{json}: {refused}");
        }
    }
}
