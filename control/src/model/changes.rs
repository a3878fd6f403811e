//! What changes of the configuration are told as: differences, and the history.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Document;

/// Something that only one of two configurations has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Piece {
    /// Where: a JSON pointer (RFC 6901) into the configuration, in which ids stand for the indices of services and real servers:
    /// `/services/tcp:10.10.24.88:80/real_servers/10.10.24.21:80`.
    pub pointer: String,
    /// What.
    #[schema(value_type = Value)]
    pub value: Value,
}

/// Something that is not the same in two configurations.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Edit {
    /// Where, as in a piece: `/services/tcp:10.10.24.88:80/scheduler`. What stands for a list of services or real servers itself is
    /// their order, as ids.
    pub pointer: String,
    /// What it was.
    #[schema(value_type = Value)]
    pub before: Value,
    /// What it became, or would become.
    #[schema(value_type = Value)]
    pub after: Value,
}

/// What a change changed, or what one that was only tried (`dry_run=true`) would change; empty when that is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The revision in force when this was answered.
    pub revision: u64,
    /// What comes.
    pub added: Vec<Piece>,
    /// What goes.
    pub removed: Vec<Piece>,
    /// What becomes another.
    pub changed: Vec<Edit>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// One change in the history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The revision that it led to.
    pub revision: u64,
    /// When, in UTC (RFC 3339): `2026-05-04T13:05:09Z`.
    pub at: String,
    /// Who: `root (uid 0)` over the unix socket.
    pub by: String,
    /// What, in words: `1 service added`.
    pub what: String,
}

/// One change in the history, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Whether its document was kept, so that it can be read and rolled back to. Of changes that come faster than the disk takes
    /// them, only the last of each write has one.
    pub kept: bool,
}

/// The last changes, the newest first: at most 50.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The revision in force.
    pub revision: u64,
    /// The changes.
    pub changes: Vec<HistoryEntry>,
}

/// A configuration as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PastDocument {
    /// The changes that led to it since the kept one before.
    pub changes: Vec<Change>,
    /// The configuration.
    pub document: Document,
}

/// Where to go back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// The revision; when left out, the kept one before the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// What a write is answered with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome<T> {
    /// It was done: what was written, as it is now.
    Done(T),
    /// With `dry_run=true`: what it would change.
    DryRun(Difference),
}
