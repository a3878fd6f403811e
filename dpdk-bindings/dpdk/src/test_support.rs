//! Tests that need the EAL, one process each: `cargo test` runs them like any other.
//!
//! The EAL starts once per process, and tests share one. So [`eal_test!`](crate::eal_test) makes a test that runs its own
//! test binary again, for that one test, and takes the child's exit status as its verdict.

use std::env;
use std::process::{Command, Stdio};

use crate::eal::{Eal, EalConfig};

/// Set in the child, to the name of the one test to run there.
const MARKER: &str = "BATON_EAL_TEST";

/// Defines tests that get a running [`Eal`] without huge pages, PCI or files, in a process of their own.
///
/// ```text
/// dpdk::eal_test! {
///     /// With the EAL of `test_support::config()`.
///     fn frames_come_home(eal) { let _ = eal; }
///     /// With arguments of its own.
///     fn null_port_exists(eal, config = |c| c.vdevs.push("net_null0".into())) { let _ = eal; }
/// }
/// ```
#[macro_export]
macro_rules! eal_test {
    ($($(#[$attribute:meta])* fn $name:ident($eal:ident $(, config = $change:expr)?) $body:block)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            #[allow(unused_mut)]
            let mut config = $crate::test_support::config();
            $(
                let change: fn(&mut $crate::eal::EalConfig) = $change;
                change(&mut config);
            )?
            $crate::test_support::in_child(
                concat!(module_path!(), "::", stringify!($name)),
                &config,
                |$eal: $crate::eal::Eal| $body,
            );
        }
    )*};
}

/// Ordinary memory, no devices, no files; one worker on each of the first two CPUs that this process may use (twice the same
/// if there is one), the main thread on the first.
pub fn config() -> EalConfig {
    let allowed = allowed_cpus();
    let first = allowed.first().copied().unwrap_or(0);
    EalConfig {
        program: "baton-test".into(),
        main_core: first,
        worker_cores: vec![first, allowed.get(1).copied().unwrap_or(first)],
        no_huge: true,
        memory_mb: Some(64),
        // Without shared files, processes of one prefix do not meet, and only one folder is left behind.
        file_prefix: "baton-test".into(),
        log_level: Some("error".into()),
        extra: vec!["--no-shconf".into()],
        ..EalConfig::default()
    }
}

/// CPUs that this process may use, in order.
pub fn allowed_cpus() -> Vec<u32> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let Ok(set) = sched_getaffinity(nix::unistd::Pid::from_raw(0)) else {
        return vec![0];
    };
    let allowed = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false));
    allowed.filter_map(|cpu| u32::try_from(cpu).ok()).collect()
}

/// Runs `body` in a child process with the EAL, and fails with the child's output if that fails.
pub fn in_child(path: &str, config: &EalConfig, body: impl FnOnce(Eal)) {
    only_in_child(path, || {
        let eal = Eal::init(config);
        assert!(eal.is_ok(), "{}", eal.map_or_else(|error| error.to_string(), |_| String::new()));
        if let Ok(eal) = eal {
            body(eal);
        }
    });
}

/// Runs `body` in a child process, without starting the EAL there.
///
/// `path` is the module path and name of the calling `#[test]`.
pub fn only_in_child(path: &str, body: impl FnOnce()) {
    // libtest's names leave out the crate.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    if env::var_os(MARKER).is_some_and(|marker| marker == name) {
        body();
        return;
    }
    let output = env::current_exe().and_then(|binary| {
        Command::new(binary)
            .args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
            .env(MARKER, name)
            .stdin(Stdio::null())
            .output()
    });
    assert!(output.is_ok(), "cannot run {name} in a child: {output:?}");
    let Ok(output) = output else { return };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{name} in a child: {}\n{stdout}\n{stderr}", output.status);
}
