//! Why the director did not do, or not wholly do, what it was asked.

use std::net::{IpAddr, SocketAddr};

use super::Resource;
use crate::model::{Difference, Fault, ServiceKey};

/// Why a request was refused, what is left to happen of one that was accepted, or what one would do that was only tried.
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
    DrainNotStored(String),
    /// Nothing was changed: a condition on the resource's state is not met.
    #[error("{}", not_as_asked(*resource, *now, *asked))]
    NotAsAsked {
        /// The resource.
        resource: Resource,
        /// The revision in which it last became another; `None` when there is no such resource.
        now: Option<u64>,
        /// The revision that was asked for, where one was.
        asked: Option<u64>,
    },
    /// Nothing was changed, and nothing was to be: this is what would have been.
    #[error("nothing was changed: it was only asked what would be")]
    DryRun(Box<Difference>),
    /// There is no such revision in the history.
    #[error("{}", not_kept(*revision, kept))]
    NotKept {
        /// The revision that was asked for; `None` for the one before the present one.
        revision: Option<u64>,
        /// Those that there are.
        kept: Vec<u64>,
    },
    /// The history could not be read.
    #[error("the history could not be read: {0}")]
    Unread(String),
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

fn not_as_asked(resource: Resource, now: Option<u64>, asked: Option<u64>) -> String {
    let now = match now {
        Some(revision) => format!("{resource} is as it is since revision {revision}"),
        None => format!("{resource} is not there"),
    };
    match asked {
        Some(asked) => format!("{now}, and it was to be as in revision {asked}: read it again"),
        None => format!("{now}, and it was to be otherwise"),
    }
}

fn not_kept(revision: Option<u64>, kept: &[u64]) -> String {
    let which = revision.map_or_else(|| "a revision before the present one".to_owned(), |revision| format!("revision {revision}"));
    let kept: Vec<String> = kept.iter().map(u64::to_string).collect();
    let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
    format!("{which} is not in the history: there is {kept}")
}

fn summary(faults: &[Fault]) -> String {
    match faults {
        [only] => only.detail.clone(),
        [first, rest @ ..] => format!("{} (and {} more)", first.detail, rest.len()),
        [] => String::new(),
    }
}
