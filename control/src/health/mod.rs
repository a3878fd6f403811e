//! Health checks: they ask real servers the way that clients do, and tell the director what they are sure of.
//!
//! ```text
//!  director: checks that are wanted --> manager (here): one task for each different check --> director: up, or down and why
//! ```
//! A task (`watch.rs`) makes one check after the other (`ask.rs`, `tls.rs`) and counts results in a row (`judge.rs`).

pub(crate) mod ask;
pub mod check;
mod connect;
mod judge;
mod pace;
pub(crate) mod tls;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::director::{Director, Subject};
use crate::kernel::probes::Probes;
use ask::Tools;
use check::{Check, Path};
use connect::Failure;
use judge::Verdict;
pub use pace::Pace;

/// Changes that come within so short a time are followed at once.
const GATHER: Duration = Duration::from_millis(5);

/// What the director knows of a real server: that it is up, or why it is down.
type Known = Option<Result<(), String>>;

/// Real servers that one check speaks for, and what it found last.
#[derive(Debug, Default)]
struct Audience {
    subjects: Vec<Subject>,
    last: Option<Result<(), Failure>>,
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<()>,
    audience: Arc<Mutex<Audience>>,
    /// The next check is to be made at once.
    hurry: Arc<Notify>,
}

impl Running {
    /// Speaks for these real servers from now on. One of which the director knows something else than was found is told at once: it
    /// wants the check anew, or was taken away and brought back so soon that its check went on and has no news.
    fn serve(&self, director: &Director, check: &Check, subjects: Vec<Subject>, wanting: &[(Subject, Known)]) {
        let mut audience = self.audience.lock().unwrap_or_else(PoisonError::into_inner);
        audience.subjects = subjects;
        let Some(last) = audience.last.clone() else { return };
        drop(audience);
        let found = last.clone().map_err(|why| why.to_string());
        let unaware: Vec<Subject> = wanting.iter().filter(|(_, known)| known.as_ref() != Some(&found)).map(|(one, _)| *one).collect();
        if !unaware.is_empty() {
            tell(director, check, &unaware, &last);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the checks that are wanted until it is dropped; call it inside a runtime. `user` is who programs of checks run as.
pub async fn run(director: Director, probes: Probes, user: String) {
    let tools = Arc::new(Tools::new(&user));
    let mut running: HashMap<Arc<Check>, Running> = HashMap::new();
    let mut changed = director.checks_changed();
    changed.mark_changed();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(GATHER).await;
        changed.borrow_and_update();
        follow(&director, &probes, &tools, &mut running);
    }
}

fn follow(director: &Director, probes: &Probes, tools: &Arc<Tools>, running: &mut HashMap<Arc<Check>, Running>) {
    let mut ways: HashMap<Path, Option<[u8; 6]>> = HashMap::new();
    let mut wanted: HashMap<Check, Vec<(Subject, Known)>> = HashMap::new();
    for one in director.checks() {
        if let Some(path) = one.path() {
            ways.insert(path, one.mac);
        }
        wanted.entry(one.check).or_default().push((one.subject, one.known));
    }
    probes.put(&ways);
    running.retain(|check, _| wanted.contains_key(check.as_ref()));
    for (check, wanting) in wanted {
        let subjects: Vec<Subject> = wanting.iter().map(|(subject, _)| *subject).collect();
        if let Some(one) = running.get(&check) {
            one.serve(director, &check, subjects, &wanting);
            continue;
        }
        let check = Arc::new(check);
        let audience = Arc::new(Mutex::new(Audience { subjects, last: None }));
        let hurry = Arc::new(Notify::new());
        let gear =
            watch::Gear { probes: probes.clone(), tools: Arc::clone(tools), pace: Arc::clone(director.pace()), hurry: Arc::clone(&hurry) };
        let task = tokio::spawn(watch::run(Arc::clone(&check), gear, report(director, &check, &audience)));
        running.insert(check, Running { task, audience, hurry });
    }
    let hinted = director.take_hints();
    if !hinted.is_empty() {
        for one in running.values() {
            let audience = one.audience.lock().unwrap_or_else(PoisonError::into_inner);
            if audience.subjects.iter().any(|subject| hinted.contains(subject)) {
                one.hurry.notify_one();
            }
        }
    }
}

/// What a task does with what it is sure of.
fn report(director: &Director, check: &Arc<Check>, audience: &Arc<Mutex<Audience>>) -> impl FnMut(Verdict) + Send + use<> {
    let (director, check, audience) = (director.clone(), Arc::clone(check), Arc::clone(audience));
    move |verdict| {
        let subjects = {
            let mut audience = audience.lock().unwrap_or_else(PoisonError::into_inner);
            audience.last = Some(verdict.clone());
            audience.subjects.clone()
        };
        tell(&director, &check, &subjects, &verdict);
    }
}

fn tell(director: &Director, check: &Check, subjects: &[Subject], verdict: &Verdict) {
    let reason = verdict.as_ref().err().map(ToString::to_string);
    director.set_health(subjects, check, reason.as_deref(), SystemTime::now());
}

#[cfg(test)]
mod many_tests;

#[cfg(test)]
mod tests;
