//! The terms of a change: who asks for it, what must be so before it, and whether it is only tried.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::records::ServerKey;
use super::{Director, Error, Inner};
use crate::model::ServiceKey;

/// Who asks for a change, as the history names them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor(Arc<str>);

impl Actor {
    /// Someone of this name: a user, a token.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
}

impl Default for Actor {
    fn default() -> Self {
        Self("baton".into())
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What can be read, changed and asked to be as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// The whole configuration, or the list of services.
    Document,
    /// The settings.
    Settings,
    /// The mark rules.
    Marks,
    /// A virtual service with its real servers.
    Service(ServiceKey),
    /// A real server of a virtual service.
    RealServer(ServiceKey, SocketAddr),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => f.write_str("the configuration"),
            Self::Settings => f.write_str("the settings"),
            Self::Marks => f.write_str("the mark rules"),
            Self::Service(key) => write!(f, "virtual service {key}"),
            Self::RealServer(key, server) => write!(f, "real server {server} of virtual service {key}"),
        }
    }
}

/// A state of a resource: the revision in which it last became another, and the run of the director that counted it.
///
/// After a restart everything counts as changed in the revision that was stored, and a revision that was lost with the last run
/// may come again: the run tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The revision.
    pub revision: u64,
    /// The run.
    pub run: u32,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}-{:x}\"", self.revision, self.run)
    }
}

impl Tag {
    /// Reads an entity tag with its quotes; `None` when it is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (revision, run) = text.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
        Some(Self { revision: revision.parse().ok()?, run: u32::from_str_radix(run, 16).ok()? })
    }
}

/// What must be so before a change (RFC 9110 section 13.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The resource is in one of these states (`If-Match`). `None` is an entity tag that is none of ours.
    Unchanged(Vec<Option<Tag>>),
    /// The resource is there (`If-Match: *`).
    Present,
    /// The resource is not there (`If-None-Match: *`).
    Absent,
}

/// The terms of a change.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Who asks.
    pub actor: Actor,
    /// What must be so.
    pub condition: Option<Condition>,
    /// The request makes the resource when it is not there, so that a condition on its state is not met then.
    pub makes: bool,
    /// Nothing is to be changed: every write answers with [`Error::DryRun`].
    pub dry_run: bool,
}

impl Director {
    /// The same director, whose writes through this handle keep `terms`.
    #[must_use]
    pub fn under(&self, terms: Terms) -> Self {
        Self(Arc::clone(&self.0), terms)
    }

    /// The state of a resource; `None` when there is no such resource.
    ///
    /// To be asked before the resource is read: then a change in between makes the tag too old, and never too new.
    pub fn tag(&self, resource: Resource) -> Option<Tag> {
        let revision = self.lock().changed_in(resource)?;
        Some(Tag { revision, run: self.0.run })
    }

    pub(super) fn check_condition(&self, inner: &Inner, resource: Resource) -> Result<(), Error> {
        let Some(condition) = &self.1.condition else { return Ok(()) };
        let now = inner.changed_in(resource);
        let asked = match (condition, now) {
            (Condition::Absent, None) | (Condition::Present, Some(_)) => return Ok(()),
            // What is missing is said by the write itself.
            (Condition::Present | Condition::Unchanged(_), None) if !self.1.makes => return Ok(()),
            (Condition::Unchanged(tags), Some(revision)) => {
                if tags.contains(&Some(Tag { revision, run: self.0.run })) {
                    return Ok(());
                }
                tags.iter().flatten().next().map(|tag| tag.revision)
            }
            _ => None,
        };
        Err(Error::NotAsAsked { resource, now, asked })
    }
}

impl Inner {
    /// The revision in which a resource last became another.
    fn changed_in(&self, resource: Resource) -> Option<u64> {
        let desired = &self.desired;
        match resource {
            Resource::Document => Some(self.revision),
            Resource::Settings => Some(desired.settings_changed),
            Resource::Marks => Some(desired.marks_changed),
            Resource::Service(key) => Some(desired.services.get(desired.services.find(&key)?)?.changed),
            Resource::RealServer(service, server) => {
                let id = desired.services.find(&service)?;
                let id = self.find_member(id, &ServerKey { service, address: server.ip(), port: server.port() })?;
                Some(desired.servers.get(id)?.changed)
            }
        }
    }
}
