//! How well many checks keep their times:
//! `cargo test -p control --lib five_thousand_checks -- --ignored --nocapture`

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::ask::Tools;
use super::check::{Check, Times, Way, What};
use super::{Pace, watch};
use crate::kernel::probes::{Networks, Probes};
use crate::model::HealthSpec;

const CHECKS: u32 = 5_000;

/// A thread that takes connections for as long as the test's process lives.
fn listener() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                drop(listener.accept().await);
            }
        });
    });
    told.recv().unwrap()
}

/// What this thread has worked so far.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap())).sum()
}

#[tokio::test]
#[ignore = "takes twelve seconds of a whole core, and measures"]
async fn five_thousand_checks_a_second_keep_their_times() {
    let target = listener();
    let (pace, up) = (Arc::new(Pace::default()), Arc::new(AtomicUsize::new(0)));
    let times = Times::of(&HealthSpec { interval: Some("1s".parse().unwrap()), ..HealthSpec::default() });
    let check = Arc::new(Check { what: What::Tcp, way: Way::Direct(target), times });
    let tools = Arc::new(Tools::new("nobody"));
    let tasks: Vec<_> = (0..CHECKS)
        .map(|_| {
            let gear = watch::Gear {
                probes: Probes::new(Networks::default()),
                tools: Arc::clone(&tools),
                pace: Arc::clone(&pace),
                hurry: Arc::new(Notify::new()),
            };
            let up = Arc::clone(&up);
            let report = move |verdict: super::Verdict| {
                assert_eq!(verdict, Ok(()));
                up.fetch_add(1, Relaxed);
            };
            tokio::spawn(watch::run(Arc::clone(&check), gear, report))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, worked) = (pace.count(), cpu_time());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (made, worked) = (pace.count() - before, cpu_time().saturating_sub(worked));
    println!(
        "{CHECKS} checks every second: {} a second, with {worked:?} of 10 s of a core; they began late by at most {:?} (half), {:?} (99 of 100), {:?} (all)",
        made / 10,
        pace.percentile(50),
        pace.percentile(99),
        pace.percentile(100)
    );
    assert_eq!(up.load(Relaxed), CHECKS as usize, "all are up, and stayed so");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
