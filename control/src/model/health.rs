//! Health checks as users describe them, and what they found.

mod found;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Method;
pub use found::{Health, HealthState, Quorum};
pub use values::{Span, StatusSet};

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
    /// Sends an ICMP echo request.
    Ping,
    /// Sends a datagram and judges the answer.
    Udp,
    /// Asks a name server, over UDP.
    Dns,
    /// Asks gRPC's health service (grpc.health.v1), with or without TLS.
    Grpc,
    /// Runs a program.
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
    /// http, https: the Host header, grpc: the authority; the address and port that are asked when left out.
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
    /// http, https, udp, exec: a regular expression that the first 64 KiB of the body, the answer or the output must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// https, and grpc with TLS: the name that is asked for and that the certificate must have; `host`, or else the address, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The same: a PEM file with the authorities that are believed; the system's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The same: `false` takes any certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// udp: the datagram that is sent, as text; an empty one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// udp: the same in hexadecimal digits, two a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "ffffffff54536f75726365")]
    pub send_hex: Option<String>,
    /// udp: `false` asks for no answer: then only an ICMP error fails the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<bool>,
    /// dns: the name that is asked for; must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "www.example.org")]
    pub name: Option<String>,
    /// dns: the type of record; `A` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "AAAA")]
    pub record: Option<String>,
    /// dns: the response code that is healthy; `NOERROR` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "NXDOMAIN")]
    pub rcode: Option<String>,
    /// dns: the data that one of the answer's records must have, as zone files write it, such as an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// grpc: the name of the service that is asked about; the whole server when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_service: Option<String>,
    /// grpc: `true` for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// exec: the full path of a program, and its arguments; exit code 0 is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Of a service: over this time, 1 s to 1 h, the weight of a real server that recovered grows from a tenth to the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Span>,
    /// Of a service: the same over so many connections; with both, whichever is further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10)]
    pub slow_start_connections: Option<u32>,
    /// Of a service: `true` checks a real server at once when its clients repeat SYNs or reset many connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<bool>,
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
