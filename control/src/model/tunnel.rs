//! Tunnels to real servers as users describe them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a tunnelled packet is carried in, by ipvsadm's name (`--tun-type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelType {
    /// IP in IP (RFC 2003, RFC 2473): the default.
    #[default]
    Ipip,
    /// A UDP datagram with a GUE header; takes a port.
    Gue,
    /// GRE (RFC 2784).
    Gre,
}

impl TunnelType {
    /// The name that `--tun-type` takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

/// The checksum over a whole tunnelled packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None (`--tun-nocsum`): the default.
    #[default]
    None,
    /// UDP's or GRE's (`--tun-csum`).
    Whole,
    /// As `whole`, for a receiver of `gue` that offloads checksums remotely (`--tun-remcsum`); packets that come from a wire are the same.
    Remote,
}

impl TunnelChecksum {
    /// ipvsadm's option.
    pub const fn option(self) -> &'static str {
        match self {
            Self::None => "--tun-nocsum",
            Self::Whole => "--tun-csum",
            Self::Remote => "--tun-remcsum",
        }
    }

    /// What `ipvsadm -L --tun-info` shows.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::None => "-c",
            Self::Whole => "+c",
            Self::Remote => "r+c",
        }
    }
}

/// The tunnel to a real server, where the method is `tunnel`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// What packets are carried in.
    #[serde(rename = "type")]
    pub kind: TunnelType,
    /// The UDP port of `gue`, 1 to 65535, which has no default; the other types have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub port: Option<u16>,
    /// The checksum; `ipip` has none.
    #[serde(default)]
    pub checksum: TunnelChecksum,
}

impl Tunnel {
    /// Every rule that it breaks: the field and what is wrong with it.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let (kind, mut faults) = (self.kind.as_str(), Vec::new());
        match (self.kind, self.port) {
            (TunnelType::Gue, None) => faults.push(("port", "a tunnel of type gue needs its UDP port, 1 to 65535".to_owned())),
            (TunnelType::Gue, Some(0)) => faults.push(("port", "port is 0: allowed are 1 to 65535".to_owned())),
            (TunnelType::Ipip | TunnelType::Gre, Some(port)) => {
                faults.push(("port", format!("port is {port}, but a tunnel of type {kind} has none: leave it out or use gue")));
            }
            _ => {}
        }
        match (self.kind, self.checksum) {
            (TunnelType::Ipip, TunnelChecksum::Whole | TunnelChecksum::Remote) => {
                faults.push(("checksum", "a tunnel of type ipip has no checksum: allowed is none".to_owned()));
            }
            (TunnelType::Gre, TunnelChecksum::Remote) => {
                faults.push(("checksum", "a remote checksum is for type gue only: allowed with gre are none and whole".to_owned()));
            }
            _ => {}
        }
        faults
    }
}

/// As `ipvsadm -L --tun-info` shows it: `ipip`, `gue:6080:-c`, `gre:+c`.
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, sign) = (self.kind.as_str(), self.checksum.sign());
        match self.kind {
            TunnelType::Ipip => f.write_str(kind),
            TunnelType::Gue => write!(f, "{kind}:{}:{sign}", self.port.unwrap_or_default()),
            TunnelType::Gre => write!(f, "{kind}:{sign}"),
        }
    }
}
