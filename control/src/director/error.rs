//! Why the director did not do, or not wholly do, what it was asked.

use std::net::{IpAddr, SocketAddr};

use crate::model::{Fault, ServiceKey};

/// Why a request was refused, or what is left to happen of one that was accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document breaks a rule; every fault is named.
    #[error("{}", summary(.0))]
    Invalid(Vec<Fault>),
    /// A new virtual service has the key of an existing one.
    #[error("virtual service {0} exists already")]
    ServiceExists(ServiceKey),
    /// There is no such virtual service.
    #[error("there is no virtual service {0}")]
    NoSuchService(ServiceKey),
    /// A new real server has the address and port of an existing one.
    #[error("virtual service {0} has a real server {1} already")]
    RealServerExists(ServiceKey, SocketAddr),
    /// There is no such real server.
    #[error("virtual service {0} has no real server {1}")]
    NoSuchRealServer(ServiceKey, SocketAddr),
    /// The real server is not being drained.
    #[error("real server {1} of {0} is not being drained")]
    NoDrain(ServiceKey, SocketAddr),
    /// A drain is in force and would be forgotten by a restart.
    #[error("{0}")]
    NotKept(String),
    /// There is no such VIP.
    #[error("no virtual service and no mark rule has the VIP {0}")]
    NoSuchVip(IpAddr),
    /// Nothing was changed: what it takes is not free at this moment.
    #[error("{0}")]
    Busy(String),
    /// A worker did not answer in time; a change is kept and reaches the worker once it takes commands again.
    #[error("{0}")]
    Timeout(String),
    /// The change is in force and would be lost by a restart.
    #[error("revision {revision} is in force but not in the state file: {cause}; it is tried again every 2 seconds")]
    NotStored {
        /// The revision that the change led to.
        revision: u64,
        /// What failed.
        cause: String,
    },
}

fn summary(faults: &[Fault]) -> String {
    match faults {
        [only] => only.detail.clone(),
        [first, rest @ ..] => format!("{} (and {} more)", first.detail, rest.len()),
        [] => String::new(),
    }
}
