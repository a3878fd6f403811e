//! Ports and workers under DPDK, on devices without hardware.

use std::path::Path;
use std::time::Duration;

use dpdk::eal::{Eal, EalConfig};

use super::devices;
use super::workers::Workers;
use crate::config::Config;

fn config(device: &str) -> Config {
    let text = format!("[[port]]\nname = \"lan\"\ndevice = \"{device}\"\n[workers]\ncores = [0, 0]\n[limits]\nconnections = 1024\n");
    crate::config::parse(&text, Path::new("baton.toml"), &[0]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn with_null_device(config: &mut EalConfig) {
    config.vdevs.push("net_null0,no-rx=1".to_owned());
    config.memory_mb = Some(256);
}

fn wait_for_the_end(workers: &mut Workers) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), workers.ended()).await }).expect("the end is noticed")
}

dpdk::eal_test! {
    fn workers_turn_on_every_port_until_they_are_told_to_end(eal, config = with_null_device) {
        let config = config("net_null0,no-rx=1");
        let mut ports = devices::open(&eal, &config).unwrap();
        assert_eq!((ports[0].ways.len(), ports[0].mtu, ports[0].driver.as_str()), (2, 1500, "net_null"));
        assert_ne!(ports[0].mac, [0; 6], "a frame must come from somebody");
        let workers = Workers::start(&eal, &config, &mut ports, &[]).unwrap();
        assert!(ports[0].ways.is_empty(), "the workers have them");
        let turns = || -> Vec<u64> { workers.ends().iter().map(|end| end.report().turns.get()).collect() };
        let before = turns();
        while turns().iter().zip(&before).any(|(now, before)| now <= before) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(workers.stop_and_wait(Duration::from_secs(20)));
        drop(workers);
        ports[0].port.stop().expect("no queue is left");
    }

    fn end_of_a_worker_is_noticed(eal, config = with_null_device) {
        let config = config("net_null0,no-rx=1");
        let mut ports = devices::open(&eal, &config).unwrap();
        let mut workers = Workers::start(&eal, &config, &mut ports, &[]).unwrap();
        workers.ends()[1].stop();
        assert_eq!(wait_for_the_end(&mut workers), "worker 1 has ended: it returned");
    }

    fn panic_of_a_worker_is_noticed_with_what_it_said(eal) {
        let mut workers = Workers::of(vec![eal.launch(0, || panic!("row 3")).unwrap()]);
        assert_eq!(wait_for_the_end(&mut workers), "worker 0 has ended: it panicked: row 3");
    }

    fn port_that_dpdk_does_not_have_is_named_with_those_that_it_has(eal, config = with_null_device) {
        let refused = open_error(&eal, "net_null7");
        assert_eq!(refused, "port 'lan': DPDK has no port for net_null7; it has net_null0");
    }

    fn pool_that_does_not_find_memory_is_refused_with_what_mends_it(eal, config = |c: &mut EalConfig| c.vdevs.push("net_null0".to_owned())) {
        let refused = devices::open(&eal, &config_with_many_buffers()).unwrap_err();
        assert!(refused.what.contains("cannot make its pool of packet buffers") && refused.mend.contains("eal.memory"), "{refused}");
    }
}

fn open_error(eal: &Eal, device: &str) -> String {
    devices::open(eal, &config(device)).unwrap_err().what
}

fn config_with_many_buffers() -> Config {
    let mut config = config("net_null0");
    config.eal.mbufs = Some(1 << 20);
    config
}
