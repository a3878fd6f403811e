//! `baton drain`: begins, shows, waits for and cancels drains.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;

use super::client::{Client, ClientError, encode};
use super::console::Console;
use super::vips::real_server;
use crate::codes::Code;
use crate::model::{Drain, DrainOutcome, DrainSpec, DrainState, Span, Then};

/// How often progress is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines of progress where no terminal shows them are so far apart at least.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Connections were left at the deadline, and stay.
const KEPT: u8 = 3;
/// The drain was cancelled, or its real server removed, while it was waited for.
const CANCELLED: u8 = 4;

/// `baton drain`.
#[derive(Args, Debug)]
pub struct Line {
    /// The virtual service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The real server: RIP, or RIP:RPORT
    #[arg(value_name = "RIP")]
    server: String,
    /// How long its connections may take to end by themselves, up to 7 days
    #[arg(long, value_name = "TIME", default_value = "300s")]
    deadline: Span,
    /// What becomes of those that are left then
    #[arg(long, value_enum, default_value_t)]
    then: Then,
    /// Wait for the end and show progress; exit code 0: none is left, 3: some were kept, 4: cancelled
    #[arg(long, conflicts_with_all = ["cancel", "status"])]
    wait: bool,
    /// Show how far the drain is that is under way, and change nothing
    #[arg(long, conflicts_with_all = ["cancel", "deadline", "then"])]
    status: bool,
    /// Give it new connections again
    #[arg(long, conflicts_with_all = ["deadline", "then"])]
    cancel: bool,
}

/// Does what the line says; the exit code.
pub fn run(client: &Client, line: &Line, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let server = real_server(client, &line.service, &line.server)?;
    let path = format!("services/{}/real-servers/{}/drain", encode(&line.service), encode(&server));
    if line.cancel {
        client.order(Method::DELETE, &path)?;
        return Ok(0);
    }
    if !line.status {
        client.submit(Method::PUT, &path, &DrainSpec { deadline: line.deadline, then: line.then })?;
    }
    if line.wait {
        return wait(client, &path, console);
    }
    console.line(Progress(&client.get(&path)?));
    Ok(0)
}

fn wait(client: &Client, path: &str, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let mut said: Option<(Instant, u32)> = None;
    loop {
        let drain: Drain = match client.get(path) {
            Err(error) if matches!(error.code(), Some("no-drain" | "no-such-real-server" | "no-such-service")) => {
                console.renewed();
                console.complain(format_args!("the drain was cancelled, or the real server removed [{}]", Code::DrainCancelled));
                return Ok(CANCELLED);
            }
            other => other?,
        };
        if drain.state == DrainState::Over {
            console.renewed();
            console.line(Progress(&drain));
            return Ok(if drain.outcome == Some(DrainOutcome::Kept) { KEPT } else { 0 });
        }
        if !console.renew(Progress(&drain)) && said.is_none_or(|(at, left)| left != drain.connections && at.elapsed() >= LINE_EVERY) {
            console.line(Progress(&drain));
            console.flush();
            said = Some((Instant::now(), drain.connections));
        }
        if console.closed() {
            return Ok(0);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A drain in a line.
struct Progress<'a>(&'a Drain);

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drain { connections, connections_at_first, .. } = self.0;
        write!(f, "{} of {}: ", self.0.real_server, self.0.service)?;
        match self.0.outcome {
            Some(DrainOutcome::Ended) => return write!(f, "drained: all {connections_at_first} connections have ended"),
            Some(DrainOutcome::Kept) => return write!(f, "drained: {connections} of {connections_at_first} connections were kept"),
            Some(DrainOutcome::Reset) => return write!(f, "drained: what was left of {connections_at_first} connections was reset"),
            Some(DrainOutcome::Rescheduled) => {
                return write!(f, "drained: what was left of {connections_at_first} connections is scheduled anew");
            }
            Some(DrainOutcome::Restarted) => return write!(f, "drained: the director was started anew meanwhile"),
            None => {}
        }
        write!(f, "{connections} of {connections_at_first} connections left")?;
        if let Some(seconds) = self.0.oldest_at_least {
            write!(f, ", the oldest has lasted {seconds} s or longer")?;
        }
        if let Some(seconds) = self.0.estimated_end_in {
            write!(f, ", end in about {seconds} s")?;
        }
        write!(f, ", deadline in {} s, then {}", self.0.deadline_in, self.0.then.as_str())
    }
}
