use std::sync::mpsc;

use super::*;
use crate::mempool::{DEFAULT_DATA_ROOM, Mempool};
use crate::test_support::{self, allowed_cpus, only_in_child};

fn config() -> EalConfig {
    EalConfig { main_core: 0, worker_cores: vec![1, 1, 3], ..EalConfig::default() }
}

fn has(arguments: &[String], wanted: &[&str]) -> bool {
    arguments.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn workers_may_share_a_cpu() {
    let arguments = config().arguments();
    assert!(has(&arguments, &["--lcores", "0@0,1@1,2@1,3@3"]), "{arguments:?}");
    assert!(has(&arguments, &["--main-lcore", "0"]), "{arguments:?}");
}

#[test]
fn no_huge_excludes_in_memory() {
    let both = EalConfig { no_huge: true, in_memory: true, ..config() }.arguments();
    assert!(has(&both, &["--no-huge"]) && !has(&both, &["--in-memory"]), "{both:?}");
    let memory = EalConfig { in_memory: true, ..config() }.arguments();
    assert!(has(&memory, &["--in-memory"]) && !has(&memory, &["--no-huge"]), "{memory:?}");
}

#[test]
fn pci_is_probed_only_when_named_and_telemetry_only_when_asked() {
    let none = config().arguments();
    assert!(has(&none, &["--no-pci"]) && has(&none, &["--no-telemetry"]), "{none:?}");
    let some = EalConfig {
        pci_allow: vec!["0000:03:00.0".into()],
        vdevs: vec!["net_null0".into()],
        extra: vec!["--telemetry".into()],
        memory_mb: Some(512),
        ..config()
    }
    .arguments();
    assert!(has(&some, &["-a", "0000:03:00.0"]) && has(&some, &["--vdev", "net_null0"]), "{some:?}");
    assert!(has(&some, &["-m", "512"]), "{some:?}");
    assert!(!has(&some, &["--no-pci"]) && !has(&some, &["--no-telemetry"]), "{some:?}");
}

#[test]
fn missing_hugepages_are_told_from_other_trouble() {
    let error = || DpdkError::from_errno("rte_eal_init", nix::errno::Errno::ENOENT as i32);
    let huge = EalConfig { memory_mb: Some(u32::MAX), ..config() }.explain(error());
    assert_eq!(huge.kind, ErrorKind::NoHugepages);
    assert!(huge.to_string().contains("vm.nr_hugepages="), "{huge}");
    let ordinary = EalConfig { no_huge: true, ..config() }.explain(error());
    assert_eq!(ordinary.kind, ErrorKind::Other);
    assert_eq!(ordinary.to_string(), "rte_eal_init: No such file or directory");
}

#[test]
fn forbidden_core_is_refused_and_can_be_corrected() {
    only_in_child(concat!(module_path!(), "::forbidden_core_is_refused_and_can_be_corrected"), || {
        let good = test_support::config();
        let bad = EalConfig { worker_cores: vec![1023], ..good.clone() };
        let error = Eal::init(&bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::CoreNotAllowed);
        assert!(error.to_string().contains("core 1023"), "{error}");
        let absurd = EalConfig { worker_cores: vec![u32::MAX], ..good.clone() };
        assert_eq!(Eal::init(&absurd).unwrap_err().kind, ErrorKind::CoreNotAllowed);
        let crowd = EalConfig { worker_cores: vec![good.main_core; 128], ..good.clone() };
        assert_eq!(Eal::init(&crowd).unwrap_err().kind, ErrorKind::InvalidArgument);
        Eal::init(&good).unwrap();
    });
}

#[test]
fn device_that_cannot_be_opened_stops_the_start() {
    only_in_child(concat!(module_path!(), "::device_that_cannot_be_opened_stops_the_start"), || {
        let mut config = test_support::config();
        config.vdevs.push("net_nonsense0,iface=x".into());
        let error = Eal::init(&config).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PortNotFound, "{error:?}");
        assert!(error.to_string().contains("net_nonsense0"), "{error}");
    });
}

#[test]
fn start_without_hugepages_says_how_to_get_them() {
    only_in_child(concat!(module_path!(), "::start_without_hugepages_says_how_to_get_them"), || {
        // More than any machine that runs tests has set aside.
        let terabyte = EalConfig { no_huge: false, in_memory: true, memory_mb: Some(1 << 20), extra: Vec::new(), ..test_support::config() };
        let error = Eal::init(&terabyte).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoHugepages, "{error}");
        assert!(error.to_string().contains("sysctl -w vm.nr_hugepages=524288"), "{error}");
    });
}

#[test]
fn second_process_with_the_same_prefix_is_refused() {
    const SECOND: &str = "BATON_EAL_TEST_SECOND";
    const NAME: &str = "second_process_with_the_same_prefix_is_refused";
    only_in_child(concat!(module_path!(), "::second_process_with_the_same_prefix_is_refused"), || {
        let shared = |prefix: &str| EalConfig { file_prefix: prefix.into(), extra: Vec::new(), ..test_support::config() };
        if let Ok(prefix) = std::env::var(SECOND) {
            let error = Eal::init(&shared(&prefix)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::OtherProcess, "{error:?}");
            assert!(error.to_string().contains(&prefix), "{error}");
            return;
        }
        let prefix = format!("baton-test-{}", std::process::id());
        let eal = Eal::init(&shared(&prefix)).unwrap();
        let second =
            std::process::Command::new(std::env::current_exe().unwrap()).args([NAME, "--nocapture"]).env(SECOND, &prefix).output().unwrap();
        assert!(second.status.success(), "{second:?}");
        drop(eal);
        let _ = std::fs::remove_dir_all(format!("/var/run/dpdk/{prefix}"));
    });
}

#[test]
fn affinity_of_the_caller_is_restored() {
    only_in_child(concat!(module_path!(), "::affinity_of_the_caller_is_restored"), || {
        let before = allowed_cpus();
        let _eal = Eal::init(&test_support::config()).unwrap();
        assert_eq!(allowed_cpus(), before);
    });
}

crate::eal_test! {
    fn second_init_is_refused_even_after_the_first_is_gone(eal) {
        assert_eq!(Eal::init(&test_support::config()).unwrap_err().kind, ErrorKind::AlreadyInitialised);
        drop(eal);
        assert_eq!(Eal::init(&test_support::config()).unwrap_err().kind, ErrorKind::AlreadyInitialised);
        let mempool = Mempool::new("late", 63, 0, DEFAULT_DATA_ROOM, None);
        assert_eq!(mempool.unwrap_err().kind, ErrorKind::NotInitialised);
    }

    fn mempool_keeps_the_eal_alive(eal) {
        let mempool = Mempool::new("frames", 63, 0, DEFAULT_DATA_ROOM, None).unwrap();
        drop(eal);
        mempool.alloc().unwrap().copy_from(b"still there").unwrap();
    }

    fn frame_survives_every_handle(eal) {
        let mut frame = Mempool::new("frames", 63, 0, DEFAULT_DATA_ROOM, None).unwrap().alloc().unwrap();
        frame.copy_from(b"still there").unwrap();
        drop(eal);
        assert_eq!(frame.data(), b"still there");
    }

    fn worker_runs_on_its_cpu_and_returns_a_value(eal) {
        let expected = test_support::config().worker_cores;
        for (worker, &core) in expected.iter().enumerate() {
            let cpus = eal.launch(worker, allowed_cpus).unwrap().join().unwrap();
            assert_eq!(cpus, [core], "worker {worker}");
        }
    }

    fn two_workers_on_one_cpu_run_at_once(eal, config = |c| c.worker_cores = vec![c.main_core; 2]) {
        let (to_second, from_first) = mpsc::channel();
        let (to_first, from_second) = mpsc::channel();
        let first = eal.launch(0, move || {
            to_second.send(1).unwrap();
            from_second.recv().unwrap()
        }).unwrap();
        let second = eal.launch(1, move || {
            to_first.send(2).unwrap();
            from_first.recv().unwrap()
        }).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (2, 1));
    }

    fn panic_of_a_worker_comes_back_and_the_worker_can_be_used_again(eal) {
        let panicked = eal.launch(0, || panic!("lost")).unwrap().join();
        assert_eq!(panicked.map_err(|payload| *payload.downcast::<&str>().unwrap()), Err("lost"));
        assert_eq!(eal.launch(0, || 7).unwrap().join().unwrap(), 7);
    }

    fn busy_or_missing_worker_is_refused(eal) {
        let (finish, wait) = mpsc::channel::<()>();
        let busy = eal.launch(0, move || wait.recv().is_ok()).unwrap();
        assert!(!busy.is_finished());
        assert_eq!(eal.launch(0, || ()).unwrap_err().kind, ErrorKind::WorkerBusy);
        assert_eq!(eal.launch(eal.workers(), || ()).unwrap_err().kind, ErrorKind::NoSuchWorker);
        finish.send(()).unwrap();
        assert!(busy.join().unwrap());
    }

    fn worker_may_outlive_the_eal_handle(eal) {
        let mempool = Mempool::new("frames", 63, 0, DEFAULT_DATA_ROOM, None).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let worker = eal.launch(0, move || {
            wait.recv().unwrap();
            mempool.alloc().is_some()
        }).unwrap();
        drop(eal);
        go.send(()).unwrap();
        assert!(worker.join().unwrap());
    }
}
