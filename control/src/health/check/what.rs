//! What a check asks, and what a good answer is.

use crate::model::{CheckType, HealthSpec, ServiceKey, StatusSet};

/// What is asked and what a good answer is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// Whether the MAC is known.
    Arp,
    /// An ICMP echo.
    Ping,
    /// A TCP connection.
    Tcp,
    /// A datagram.
    Udp(Datagram),
    /// A question to a name server.
    Dns(Lookup),
    /// An HTTP request.
    Http(Question),
    /// An HTTP request through TLS.
    Https(Question, Trust),
    /// gRPC's health service.
    Grpc(Call),
    /// A program.
    Exec(Program),
}

/// An HTTP request and what a good answer to it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Question {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The Host header.
    pub host: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Statuses that are healthy.
    pub status: StatusSet,
    /// What the body must match.
    pub body: Option<String>,
}

/// Whose certificates are believed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Trust {
    /// The name that is asked for and that the certificate must have.
    pub name: String,
    /// A PEM file with authorities; the system's when `None`.
    pub ca: Option<String>,
    /// Whether the certificate is looked at.
    pub verify: bool,
}

/// A datagram and what a good answer to it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Datagram {
    /// What is sent.
    pub send: Vec<u8>,
    /// Whether an answer must come; if not, only an ICMP error fails the check.
    pub answer: bool,
    /// What the answer must match.
    pub body: Option<String>,
}

/// A question to a name server and what a good answer to it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// The type of record.
    pub record: String,
    /// The response code that is healthy.
    pub rcode: String,
    /// The data that one of the answer's records must have.
    pub expect: Option<String>,
}

/// A question to gRPC's health service; `SERVING` is the good answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Call {
    /// The name of the service that is asked about; empty for the whole server.
    pub service: String,
    /// The authority.
    pub host: String,
    /// With TLS, whose certificates are believed.
    pub tls: Option<Trust>,
}

/// A program; exit code 0 is the good answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Program {
    /// Its full path and its arguments.
    pub command: Vec<String>,
    /// What its output must match.
    pub body: Option<String>,
    /// The virtual service that it is told of.
    pub service: ServiceKey,
}

impl What {
    /// What `spec`, which passed validation, asks at `target` for `service`; `None` when nothing.
    pub(super) fn new(spec: &HealthSpec, target: std::net::SocketAddr, service: ServiceKey) -> Option<Self> {
        let question = || Question {
            method: spec.method.clone().unwrap_or_else(|| "GET".to_owned()),
            path: spec.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: spec.host.clone().unwrap_or_else(|| target.to_string()),
            headers: spec.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            status: spec.status.clone().unwrap_or_else(StatusSet::usual),
            body: spec.body.clone(),
        };
        let trust = || Trust {
            name: spec.sni.clone().or_else(|| spec.host.as_deref().map(without_port)).unwrap_or_else(|| target.ip().to_string()),
            ca: spec.ca.clone(),
            verify: spec.verify.unwrap_or(true),
        };
        Some(match spec.kind? {
            CheckType::None => return None,
            CheckType::Arp => Self::Arp,
            CheckType::Ping => Self::Ping,
            CheckType::Tcp => Self::Tcp,
            CheckType::Udp => Self::Udp(Datagram {
                send: spec.send.clone().map(String::into_bytes).or_else(|| bytes(spec.send_hex.as_deref()?)).unwrap_or_default(),
                answer: spec.answer.unwrap_or(true),
                body: spec.body.clone(),
            }),
            CheckType::Dns => Self::Dns(Lookup {
                name: spec.name.clone()?,
                record: spec.record.clone().unwrap_or_else(|| "A".to_owned()).to_ascii_uppercase(),
                rcode: spec.rcode.clone().unwrap_or_else(|| "NOERROR".to_owned()).to_ascii_uppercase(),
                expect: spec.expect.clone(),
            }),
            CheckType::Http => Self::Http(question()),
            CheckType::Https => Self::Https(question(), trust()),
            CheckType::Grpc => Self::Grpc(Call {
                service: spec.grpc_service.clone().unwrap_or_default(),
                host: spec.host.clone().unwrap_or_else(|| target.to_string()),
                tls: (spec.tls == Some(true)).then(trust),
            }),
            CheckType::Exec => Self::Exec(Program { command: spec.command.clone()?, body: spec.body.clone(), service }),
        })
    }

    /// Its name in documents.
    pub const fn kind(&self) -> CheckType {
        match self {
            Self::Arp => CheckType::Arp,
            Self::Ping => CheckType::Ping,
            Self::Tcp => CheckType::Tcp,
            Self::Udp(_) => CheckType::Udp,
            Self::Dns(_) => CheckType::Dns,
            Self::Http(_) => CheckType::Http,
            Self::Https(..) => CheckType::Https,
            Self::Grpc(_) => CheckType::Grpc,
            Self::Exec(_) => CheckType::Exec,
        }
    }
}

/// A host without the port that may stand behind it.
pub fn without_port(host: &str) -> String {
    let named = host.rsplit_once(':').filter(|(name, port)| !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()));
    named.map_or(host, |(name, _)| name).to_owned()
}

/// The bytes that hexadecimal digits mean, two a byte; `None` when they are none.
pub(crate) fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_two_a_byte() {
        assert_eq!(bytes("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(bytes(""), Some(Vec::new()));
        for text in ["0", "0g", "0x00", "é0"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn name_of_a_host_is_what_stands_before_its_port() {
        for (host, name) in [("shop.example:8443", "shop.example"), ("shop.example", "shop.example"), ("fd00::1", "fd00::1")] {
            assert_eq!(without_port(host), name);
        }
    }
}
