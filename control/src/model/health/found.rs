//! What health checks found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// How much of its weight it gets by now, in percent, while it starts slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 10, maximum = 90)]
    pub slow_start: Option<u8>,
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
