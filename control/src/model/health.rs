//! Health checks as users describe them, and what they found.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Method;

/// What a check does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckType {
    /// Opens a TCP connection and closes it.
    Tcp,
    /// Sends an HTTP request and judges the answer.
    Http,
    /// The same through TLS.
    Https,
    /// Looks whether the real server's MAC is known.
    Arp,
    /// Sends an echo request; not built yet.
    Ping,
    /// Sends a datagram; not built yet.
    Udp,
    /// Asks a name server; not built yet.
    Dns,
    /// Asks gRPC's health service; not built yet.
    Grpc,
    /// Runs a program; not built yet.
    Exec,
    /// No check: for a real server of a service whose others are checked.
    None,
}

impl CheckType {
    /// Its name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Arp => "arp",
            Self::Ping => "ping",
            Self::Udp => "udp",
            Self::Dns => "dns",
            Self::Grpc => "grpc",
            Self::Exec => "exec",
            Self::None => "none",
        }
    }

    /// Whether the daemon can do it.
    pub const fn is_built(self) -> bool {
        matches!(self, Self::Tcp | Self::Http | Self::Https | Self::Arp | Self::None)
    }
}

/// Which way a check takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The clients' way: to the VIP, with the real server's MAC or in its tunnel. The default, except for masquerading and marks.
    Path,
    /// To the RIP.
    Direct,
}

/// Which times and counts count where none are given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A real server that died is out within 3.5 s.
    Default,
    /// A real server that died is out within 300 ms.
    Fast,
}

/// What becomes of a real server whose check fails.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is taken out as if it were removed, until it has recovered: the default.
    #[default]
    Remove,
    /// Its weight counts as 0: it keeps its connections and gets no new ones.
    Quiesce,
    /// The same, by the name that keepalived has for it.
    Inhibit,
    /// Nothing: it is only shown.
    Keep,
}

/// What happens below the quorum where there is no sorry server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Panic {
    /// All real servers get connections, whatever their checks say.
    Keep,
}

/// A span of time, written as `2s`, `250ms` or `1m`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "2s")]
pub struct Span(pub Duration);

impl Span {
    /// How a span is written.
    pub const EXPECTED: &'static str = "a time such as \"2s\", \"250ms\" or \"1m\"";
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => 0,
        };
        let number: Option<u64> = text[..text.len() - unit.len()].parse().ok();
        let span = number.and_then(|number| number.checked_mul(milliseconds)).filter(|_| milliseconds != 0);
        span.map(|span| Self(Duration::from_millis(span))).ok_or_else(|| format!("'{text}' is no time: expected {}", Self::EXPECTED))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds {
            m if m != 0 && m.is_multiple_of(60_000) => write!(f, "{}m", m / 60_000),
            s if s.is_multiple_of(1_000) => write!(f, "{}s", s / 1_000),
            _ => write!(f, "{milliseconds}ms"),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// HTTP statuses that count as healthy, written as `200,204,300-399`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "200-299,304")]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    /// How a set is written.
    pub const EXPECTED: &'static str = "statuses from 100 to 599 such as \"200\" or \"200-299,304\"";

    /// 200 to 399: what counts where none is given. Redirects are not followed, but answer for the server.
    pub fn usual() -> Self {
        Self(vec![(200, 399)])
    }

    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first >= 100 && first <= last && last <= 599).then_some((first, last))
        };
        let ranges: Option<Vec<(u16, u16)>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| format!("'{text}' is no set of statuses: expected {}", Self::EXPECTED))
    }
}

impl TryFrom<String> for StatusSet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl From<StatusSet> for String {
    fn from(set: StatusSet) -> Self {
        set.to_string()
    }
}

/// How real servers are checked and what follows; a real server's own overrides its service's, field by field.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// What the check does; a service's must say it.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<CheckType>,
    /// `fast` for shorter times where none are given: 100 ms for `interval`, `interval_down` and `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Which way it takes; `path` when left out, `direct` for masquerading and for services by mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// The port that is asked; when left out, the vport, or with `direct` the rport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub port: Option<u16>,
    /// From the beginning of a check to that of the next, 20 ms to 1 h; 2 s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// The same while the real server is down or its last check failed; 1 s, or `interval` if that is shorter, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_down: Option<Span>,
    /// How long a check may take in all, 10 ms to 1 m; 1 s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// By how much an interval is shortened at random at most, in percent, 0 to 50; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 50)]
    pub jitter: Option<u8>,
    /// Successes in a row that bring it back, 1 to 100; 2 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub rise: Option<u32>,
    /// Failures in a row that take it out, 1 to 100; 1 when left out. A SYN that is lost does not fail a check: it tries twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub fall: Option<u32>,
    /// http, https: the path with its query; `/` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// http, https: the Host header; the address and port that are asked when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// http, https: the method; `GET` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// http, https: headers of the request, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// http, https: statuses that are healthy; `200-399` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusSet>,
    /// http, https: a regular expression that the first 64 KiB of the body must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// https: the name that is asked for and that the certificate must have; `host`, or else the address, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// https: a PEM file with the authorities that are believed; the system's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// https: `false` takes any certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// Of a service: what becomes of a real server whose check fails; `remove` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Of a service: the healthy real servers' weights must add up to so much; 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub quorum: Option<u32>,
    /// Of a service: it falls below the quorum at so much less, and is back at so much more; 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum_hysteresis: Option<u32>,
    /// Of a service: `keep` lets all real servers go on below the quorum; not with a sorry server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<Panic>,
    /// Of a service: gets all new connections below the quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry_server: Option<SorryServer>,
}

/// The real server that answers when too few others can.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SorryServer {
    /// Its RIP.
    #[schema(value_type = String, example = "10.10.24.99")]
    pub address: IpAddr,
    /// Its rport; the service's vport when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub port: Option<u16>,
    /// The forwarding method; direct routing when left out.
    #[serde(default)]
    pub method: Method,
}

/// What checks say of a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No check has ended yet: it counts as healthy.
    Unknown,
    /// Healthy.
    Up,
    /// Failed.
    Down,
}

/// A real server's health.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// What the checks say.
    pub state: HealthState,
    /// Since when, as RFC 3339 writes it; absent before the first check has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it is down, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The check in words: `http to 10.10.24.88:80 on the clients' path`.
    pub check: String,
}

/// Whether enough real servers of a service are healthy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Quorum {
    /// Whether the quorum is met.
    pub met: bool,
    /// What the healthy real servers' weights add up to.
    pub weight: u64,
    /// What they must add up to.
    pub wanted: u32,
    /// Whether the sorry server gets the new connections.
    pub sorry: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_they_are_read() {
        for text in ["2s", "250ms", "1m", "90s", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("1500ms".parse(), Ok(Span(Duration::from_millis(1_500))));
        for text in ["", "2", "s", "-1s", "1.5s", "2h", "99999999999999999999ms", "18446744073709551615m"] {
            assert!(text.parse::<Span>().unwrap_err().contains(Span::EXPECTED), "{text}");
        }
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let set: StatusSet = "200-299, 304".parse().unwrap();
        assert_eq!(set.to_string(), "200-299,304");
        assert!(set.contains(200) && set.contains(299) && set.contains(304) && !set.contains(303) && !set.contains(199));
        for text in ["", "99", "600", "300-200", "200,,201", "ok"] {
            assert!(text.parse::<StatusSet>().is_err(), "{text}");
        }
    }
}
