//! How tables for people name what documents hold.

use super::{Method, RealServer, RealServerState, TunnelType};

impl RealServerState {
    /// The state in words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Quiescent => "quiescent",
            Self::Overloaded => "overloaded",
            Self::NoMac => "no MAC",
            Self::Down => "down",
            Self::Quarantined => "quarantined",
            Self::Draining => "draining",
        }
    }
}

impl RealServer {
    /// The forwarding method in words, with the tunnel unless it is IPIP.
    pub fn method_in_words(&self) -> String {
        match (self.method, self.tunnel) {
            (Method::Tunnel, Some(tunnel)) if tunnel.kind != TunnelType::Ipip => format!("tunnel {tunnel}"),
            (Method::Tunnel, _) => "tunnel".to_owned(),
            (Method::DirectRouting, _) => "direct routing".to_owned(),
            (Method::Masquerading, _) => "masquerading".to_owned(),
        }
    }
}
