//! One check, again and again.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::ask::{Asker, Tools};
use super::check::{Check, Times, Way};
use super::connect::Failure;
use super::judge::{Judge, Verdict};
use super::pace::Pace;
use crate::kernel::probes::Probes;

/// By how much the control core may oversleep the end of a check that found nothing.
const LATE: Duration = Duration::from_millis(30);

/// What a check is made with.
pub(super) struct Gear {
    pub(super) probes: Probes,
    pub(super) tools: Arc<Tools>,
    pub(super) pace: Arc<Pace>,
    /// The next check is to be made at once.
    pub(super) hurry: Arc<Notify>,
}

/// Makes the check until it is dropped; tells `report` every change of the verdict.
pub(super) async fn run(check: Arc<Check>, gear: Gear, mut report: impl FnMut(Verdict) + Send) {
    let mut judge = Judge::default();
    let chance = Chance(RandomState::new());
    let mut count = 0_u64;
    let asker = Asker::new(&check.what, &gear.tools);
    // Many checks that begin together are spread.
    sleep(check.times.interval_down.min(Duration::from_millis(500)) * chance.percent(count) / 200).await;
    loop {
        let begin = Instant::now();
        let result = match &asker {
            Ok(asker) => Box::pin(once(&check, asker, &gear.probes, begin + check.times.timeout)).await,
            Err(why) => Err(Failure::Unable(why.clone())),
        };
        let late = Instant::now().saturating_duration_since(begin + check.times.timeout);
        match result {
            // Whoever could not look in time cannot say that nothing came.
            Err(Failure::Silent | Failure::Unfinished(_)) if late > LATE => tracing::debug!(%check, ?late, "a health check was late"),
            // What the director cannot do says nothing about the real server.
            Err(Failure::Unable(why)) => tracing::debug!(%check, why, "a health check could not be made"),
            result => {
                if let Some(verdict) = judge.take(result, &check.times) {
                    report(verdict);
                }
            }
        }
        count += 1;
        let next = begin + pause(&check.times, judge.is_hasty(), chance.percent(count));
        tokio::select! {
            biased;
            () = gear.hurry.notified() => {}
            () = sleep_until(next) => gear.pace.note(Instant::now().saturating_duration_since(next)),
        }
    }
}

/// From the beginning of one check to that of the next; `chance` is 0 to 100.
fn pause(times: &Times, hasty: bool, chance: u32) -> Duration {
    let whole = if hasty { times.interval_down } else { times.interval };
    whole.saturating_sub(whole * (u32::from(times.jitter) * chance) / 10_000)
}

/// Numbers that differ from check to check.
struct Chance(RandomState);

impl Chance {
    /// 0 to 100.
    fn percent(&self, count: u64) -> u32 {
        u32::try_from(self.0.hash_one(count) % 101).unwrap_or_default()
    }
}

async fn once(check: &Check, asker: &Asker, probes: &Probes, until: Instant) -> Verdict {
    match &check.way {
        Way::Direct(rip) => asker.ask(None, *rip, until).await,
        Way::Path { path, port, rip, own } => {
            let probe = loop {
                match probes.address(path) {
                    Some((address, true)) => break address,
                    _ if Instant::now() >= until => return Err(Failure::NoMac),
                    _ => sleep(check.times.timeout / 20).await,
                }
            };
            if asker.asks_nothing() {
                return Ok(());
            }
            let asked = asker.ask(Some(*own), SocketAddr::new(probe, *port), until);
            let reaches = |to| asker.reaches(to, until);
            Box::pin(with_hindsight(asked, reaches, check.way.target(), *rip, until)).await
        }
    }
}

/// Finds out whether a real server whose VIP does not answer is there at all: its own address is asked beside it, when half of
/// the time is over or when the VIP refuses.
async fn with_hindsight<F: Future<Output = bool>>(
    asked: impl Future<Output = Verdict>,
    reaches: impl Fn(SocketAddr) -> F,
    vip: SocketAddr,
    rip: SocketAddr,
    until: Instant,
) -> Verdict {
    let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
    let direct = async {
        sleep_until(half).await;
        reaches(rip).await
    };
    let mut asked = std::pin::pin!(asked);
    let mut direct = std::pin::pin!(direct);
    let mut rip_answers = None;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut asked => break result,
            answers = &mut direct, if rip_answers.is_none() => rip_answers = Some(answers),
        }
    };
    match result {
        Err(Failure::Silent) if rip_answers == Some(true) => Err(Failure::VipSilent { vip, rip }),
        Err(refusal @ (Failure::Refused(_) | Failure::PortClosed(_))) => {
            let answers = match rip_answers {
                Some(answers) => answers,
                None => reaches(rip).await,
            };
            Err(match refusal {
                _ if answers => Failure::VipRefused { vip, rip },
                Failure::PortClosed(_) => Failure::PortClosed(vip),
                _ => Failure::Refused(vip),
            })
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::super::connect::connect;
    use super::*;
    use crate::model::HealthSpec;

    #[test]
    fn pauses_are_shortened_at_random_and_never_lengthened() {
        let times = Times::of(&HealthSpec { jitter: Some(20), ..HealthSpec::default() });
        assert_eq!(pause(&times, false, 0), Duration::from_secs(2));
        assert_eq!(pause(&times, false, 100), Duration::from_millis(1_600));
        assert_eq!(pause(&times, true, 0), Duration::from_secs(1));
        let chance = Chance(RandomState::new());
        let drawn: std::collections::BTreeSet<u32> = (0..1_000).map(|count| chance.percent(count)).collect();
        assert!(drawn.len() > 50 && drawn.iter().all(|percent| *percent <= 100));
    }

    #[tokio::test]
    async fn vip_that_is_silent_or_refuses_is_told_from_a_dead_real_server() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let vip: SocketAddr = "10.10.24.88:80".parse().unwrap();
        let until = || Instant::now() + Duration::from_millis(200);
        let reaches = |to| async move { connect(None, to, Instant::now() + Duration::from_millis(200)).await.is_ok() };
        let silent = |until| async move {
            sleep_until(until).await;
            Err(Failure::Silent)
        };
        let end = until();
        assert_eq!(with_hindsight(silent(end), reaches, vip, alive, end).await, Err(Failure::VipSilent { vip, rip: alive }));
        let refused = async { Err(Failure::Refused(alive)) };
        assert_eq!(with_hindsight(refused, reaches, vip, alive, until()).await, Err(Failure::VipRefused { vip, rip: alive }));
        drop(listener);
        let end = until();
        assert_eq!(with_hindsight(silent(end), reaches, vip, alive, end).await, Err(Failure::Silent));
        let refused = async { Err(Failure::Refused(alive)) };
        assert_eq!(with_hindsight(refused, reaches, vip, alive, until()).await, Err(Failure::Refused(vip)));
    }
}
