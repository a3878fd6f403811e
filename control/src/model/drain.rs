//! Drains as users ask for them and as they are.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Span;

/// What becomes of the connections that are left at the deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// They stay until they end by themselves: the default.
    #[default]
    Keep,
    /// They end, and their clients' next packets are answered with TCP resets (others than TCP: port unreachable).
    Reset,
    /// They end, and their clients' next packets are scheduled as if they were first ones.
    Reschedule,
}

impl Then {
    /// Its name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
            Self::Reschedule => "reschedule",
        }
    }
}

/// A drain as a user asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainSpec {
    /// How long connections may take to end by themselves, up to 7 days; 300 s when left out.
    #[serde(default = "five_minutes")]
    pub deadline: Span,
    /// What becomes of those that are left then.
    #[serde(default)]
    pub then: Then,
}

impl Default for DrainSpec {
    fn default() -> Self {
        Self { deadline: five_minutes(), then: Then::default() }
    }
}

const fn five_minutes() -> Span {
    Span(Duration::from_mins(5))
}

/// How far a drain is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainState {
    /// Connections end by themselves.
    Waiting,
    /// The deadline is over, and what is left is being ended.
    Ending,
    /// It is over; the real server gets no new connections until the drain is cancelled.
    Over,
}

/// How a drain came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainOutcome {
    /// Every connection ended by itself.
    Ended,
    /// Some were left at the deadline, and stay.
    Kept,
    /// Some were left at the deadline, and were ended by resets.
    Reset,
    /// Some were left at the deadline, and were ended to be scheduled anew.
    Rescheduled,
    /// The director was started anew meanwhile, which forgets connections.
    Restarted,
}

/// A drain as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// The virtual service's id.
    pub service: String,
    /// RIP and rport.
    #[schema(value_type = String, example = "10.10.24.21:80")]
    pub real_server: SocketAddr,
    /// How far it is.
    pub state: DrainState,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcome: Option<DrainOutcome>,
    /// What becomes of the connections that are left at the deadline.
    pub then: Then,
    /// When it began.
    pub since: String,
    /// Seconds until the deadline; 0 when it is over.
    pub deadline_in: u64,
    /// Connections that are left.
    pub connections: u32,
    /// Connections that there were when it began.
    pub connections_at_first: u32,
    /// Seconds that the oldest one has lasted at least: none is younger than the drain. Left out when none is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub oldest_at_least: Option<u64>,
    /// Seconds until the end, as connections ended lately and by the deadline; left out once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub estimated_end_in: Option<u64>,
}
