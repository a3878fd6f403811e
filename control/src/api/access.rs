//! Who may do what: users of the machine by the socket, over TCP tokens and client certificates.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};
use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Rejection;
use super::who::{Identity, Peer, Role, Who};
use crate::codes::Code;

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// How one is written.
    pub const EXPECTED: &'static str = "the SHA-256 of a token, 64 hexadecimal digits, as `baton token` prints it";

    /// That of a token's text.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

impl std::str::FromStr for TokenHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(hash))
    }
}

impl std::fmt::Display for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A token that opens the API over TCP; the token itself is nowhere kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its name, which logs show.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// Its hash.
    pub hash: TokenHash,
}

/// A client certificate that opens the API over TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// The common name of its subject.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
}

/// Everybody who may come over TCP.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Tokens.
    pub tokens: Vec<Token>,
    /// Client certificates.
    pub clients: Vec<Client>,
}

impl Access {
    /// Whether nobody is named: then loopback may be read by everybody on this machine.
    pub const fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.clients.is_empty()
    }

    /// Who asks, and what they may; or why that cannot be said, with who they are as far as it is known.
    pub(super) fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<(Who, Role), (Who, Rejection)> {
        let (address, certificate) = match peer {
            Peer::Unix { uid } => {
                return Ok((Who::local(*uid), Role::Admin));
            }
            Peer::Tcp { address, certificate } => (address.ip(), certificate.as_ref()),
        };
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            return self.holder(given.as_bytes()).ok_or_else(|| (Who::Nobody, unauthorized("the token is not one of this director's")));
        }
        match certificate {
            Some(identity) => self.certified(identity),
            None if self.is_empty() && is_loopback(address) => Ok((Who::Loopback, Role::Read)),
            None => Err((Who::Nobody, unauthorized("say who you are: with a token (Authorization: Bearer ...) or a client certificate"))),
        }
    }

    /// The token that `Authorization` gives. Every token is compared, to the last byte, whichever it is.
    fn holder(&self, given: &[u8]) -> Option<(Who, Role)> {
        let (scheme, token) = std::str::from_utf8(given).ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let hash = TokenHash::of(token.trim());
        let mut found = None;
        for token in &self.tokens {
            let same: Choice = token.hash.0.ct_eq(&hash.0);
            if bool::from(same) {
                found = Some((Who::Token { name: token.name.clone() }, token.role));
            }
        }
        found
    }

    fn certified(&self, identity: &Identity) -> Result<(Who, Role), (Who, Rejection)> {
        let who = Who::Certificate { subject: identity.subject.clone() };
        let client = identity.name.as_ref().and_then(|name| self.clients.iter().find(|client| client.name == *name));
        if let Some(client) = client {
            return Ok((who, client.role));
        }
        let detail = format!("control.client names nobody with the common name of '{}'", identity.subject);
        Err((who, Rejection::new(Code::Forbidden, detail)))
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn unauthorized(detail: &str) -> Rejection {
    Rejection::new(Code::Unauthorized, detail)
}

/// What a request needs: everything may be looked at by readers, a day's work is in this list, and all else is the
/// configuration.
pub(super) fn needed(method: &Method, path: &str) -> Role {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Role::Read;
    }
    let steps: Vec<&str> = path.strip_prefix("/api/v1/").unwrap_or_default().split('/').collect();
    let a_days_work = matches!(
        (method.as_str(), steps.as_slice()),
        ("POST", ["services", "zero"] | ["services", _, "zero"])
            | ("PATCH", ["services", _, "real-servers", _])
            | ("DELETE", ["connections"])
            | (_, ["services", _, "real-servers", _, "drain"])
    );
    if a_days_work { Role::Operate } else { Role::Admin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let token = |name: &str, role| Token { name: name.to_owned(), role, hash: TokenHash::of(name) };
        Access {
            tokens: vec![token("reader", Role::Read), token("chief", Role::Admin)],
            clients: vec![Client { name: "ops".to_owned(), role: Role::Operate }],
        }
    }

    fn tcp(address: &str, subject: Option<(&str, &str)>) -> Peer {
        let certificate = subject.map(|(subject, name)| Identity { subject: subject.to_owned(), name: Some(name.to_owned()) });
        Peer::Tcp { address: address.parse().unwrap(), certificate }
    }

    fn ask(access: &Access, peer: &Peer, authorization: Option<&str>) -> Result<(String, Role), u16> {
        use axum::response::IntoResponse;
        let headers = authorization.map(|text| (header::AUTHORIZATION, text.parse().unwrap())).into_iter().collect();
        let said = access.identify(peer, &headers);
        said.map(|(who, role)| (who.to_string(), role)).map_err(|(_, rejection)| rejection.into_response().status().as_u16())
    }

    #[test]
    fn token_or_certificate_says_who_somebody_is() {
        let far = tcp("192.0.2.7:5000", None);
        let ops = tcp("192.0.2.7:5000", Some(("O=Example, CN=ops", "ops")));
        let other = tcp("192.0.2.7:5000", Some(("CN=other", "other")));
        for (peer, authorization, expected) in [
            (&far, Some("Bearer reader"), Ok(("token reader".to_owned(), Role::Read))),
            (&far, Some("bearer chief"), Ok(("token chief".to_owned(), Role::Admin))),
            (&far, Some("Bearer nobody"), Err(401)),
            (&far, Some("Basic cmVhZGVy"), Err(401)),
            (&far, Some("reader"), Err(401)),
            (&far, None, Err(401)),
            (&tcp("127.0.0.1:5000", None), None, Err(401)),
            (&ops, None, Ok(("certificate O=Example, CN=ops".to_owned(), Role::Operate))),
            (&ops, Some("Bearer chief"), Ok(("token chief".to_owned(), Role::Admin))),
            (&ops, Some("Bearer wrong"), Err(401)),
            (&other, None, Err(403)),
        ] {
            assert_eq!(ask(&access(), peer, authorization), expected, "{peer:?} {authorization:?}");
        }
        assert_eq!(ask(&access(), &Peer::Unix { uid: 0 }, None), Ok(("root (uid 0)".to_owned(), Role::Admin)));
    }

    #[test]
    fn without_tokens_loopback_is_read_only_and_nobody_else_gets_in() {
        let nobody = Access::default();
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(ask(&nobody, &tcp(address, None), None), Ok(("somebody on this machine".to_owned(), Role::Read)));
        }
        assert_eq!(ask(&nobody, &tcp("192.0.2.7:1", None), None), Err(401));
    }

    #[test]
    fn roles_are_by_what_is_done() {
        for (method, path, role) in [
            (Method::GET, "/api/v1/config", Role::Read),
            (Method::HEAD, "/metrics", Role::Read),
            (Method::POST, "/api/v1/services/zero", Role::Operate),
            (Method::POST, "/api/v1/services/tcp:10.0.0.1:80/zero", Role::Operate),
            (Method::PATCH, "/api/v1/services/a/real-servers/b", Role::Operate),
            (Method::DELETE, "/api/v1/connections", Role::Operate),
            (Method::PATCH, "/api/v1/services/a", Role::Admin),
            (Method::DELETE, "/api/v1/services/a/real-servers/b", Role::Admin),
            (Method::PUT, "/api/v1/config", Role::Admin),
            (Method::from_bytes(b"BREW").unwrap(), "/", Role::Admin),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn hash_of_a_token_is_sha_256() {
        let hash = TokenHash::of("abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("ba78".parse::<TokenHash>().is_err() && "é".repeat(32).parse::<TokenHash>().is_err());
    }
}
