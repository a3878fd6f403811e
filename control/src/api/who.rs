//! Who asks, and what they may.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What somebody may do; each may also do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Also what a day's work needs: change a real server (its weight), drain it, end connections, zero counters.
    Operate,
    /// Also change the configuration.
    Admin,
}

impl Role {
    /// Its name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who somebody is; documents name the kind and what is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Who {
    /// A user of this machine, by the unix socket.
    Local {
        /// The user's number.
        uid: u32,
        /// The user's name, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// The holder of a token.
    Token {
        /// The token's name in the configuration.
        name: String,
    },
    /// The holder of a client certificate that one of our authorities signed.
    Certificate {
        /// The certificate's subject.
        subject: String,
    },
    /// Anybody on this machine, over loopback without a token.
    Loopback,
    /// Somebody who did not say, or not truly.
    Nobody,
}

impl Who {
    /// A user of this machine. Only /etc/passwd is asked for the name, since other sources of names may hang.
    pub(super) fn local(uid: u32) -> Self {
        let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Self::Local { uid, user }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, user: Some(user) } => write!(f, "{user} (uid {uid})"),
            Self::Local { uid, user: None } => write!(f, "uid {uid}"),
            Self::Token { name } => write!(f, "token {name}"),
            Self::Certificate { subject } => write!(f, "certificate {subject}"),
            Self::Loopback => f.write_str("somebody on this machine"),
            Self::Nobody => f.write_str("somebody unknown"),
        }
    }
}

/// The other end of a connection, before it has said anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Over the unix socket: the user that the kernel names.
    Unix {
        /// The user's number.
        uid: u32,
    },
    /// Over TCP.
    Tcp {
        /// Its address.
        address: SocketAddr,
        /// Its certificate, if TLS has verified one.
        certificate: Option<Identity>,
    },
}

/// What a verified certificate says of its holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The whole subject (RFC 4514 in reading order).
    pub subject: String,
    /// Its common name.
    pub name: Option<String>,
}

impl Peer {
    /// Where it is.
    pub fn place(&self) -> String {
        match self {
            Self::Unix { .. } => "unix".to_owned(),
            Self::Tcp { address, .. } => address.to_string(),
        }
    }
}
