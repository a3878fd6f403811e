use super::*;
use crate::burst::Burst;
use crate::eal::EalConfig;
use crate::mempool::{DEFAULT_DATA_ROOM, Mempool};

fn mempool(_eal: &Eal) -> Mempool {
    Mempool::new("frames", 4095, 256, DEFAULT_DATA_ROOM, None).unwrap()
}

fn with_null(config: &mut EalConfig) {
    config.vdevs.push("net_null0,size=64".into());
}

fn two_queues() -> PortConfig {
    PortConfig { rx_queues: 2, tx_queues: 2, rx_descriptors: 128, tx_descriptors: 128, ..PortConfig::default() }
}

crate::eal_test! {
    fn unknown_port_is_named_with_those_that_exist(eal, config = with_null) {
        let error = Port::by_name(&eal, "0000:03:00.0").unwrap_err();
        assert_eq!(error.kind, ErrorKind::PortNotFound);
        let text = error.to_string();
        assert!(text.contains("0000:03:00.0") && text.contains("net_null0"), "{text}");
    }

    fn port_has_one_owner_at_a_time(eal, config = with_null) {
        assert_eq!(Port::count(), 1);
        let port = Port::by_name(&eal, "net_null0,size=64").unwrap();
        assert_eq!((port.name().as_str(), port.id()), ("net_null0", 0));
        assert_eq!(Port::by_name(&eal, "net_null0").unwrap_err().kind, ErrorKind::PortInUse);
        assert!(Port::all(&eal).is_empty());
    }

    fn device_tells_what_it_can_do(eal, config = with_null) {
        let port = Port::all(&eal).pop().unwrap();
        let info = port.info();
        assert_eq!(info.driver, "net_null");
        assert!(info.max_rx_queues >= 2 && info.max_mtu >= 1500, "{info:?}");
        assert!(info.rss_types != 0 && info.reta_size == 128, "{info:?}");
    }

    fn too_many_queues_are_refused_with_numbers(eal, config = with_null) {
        let mempool = mempool(&eal);
        let mut port = Port::by_name(&eal, "net_null0").unwrap();
        for (rx_queues, tx_queues) in [(0, 1), (1, 0), (u16::MAX, 1), (1, u16::MAX)] {
            let config = PortConfig { rx_queues, tx_queues, ..PortConfig::default() };
            let error = port.configure(&config, &mempool).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotEnoughQueues);
            assert!(error.to_string().contains("net_null0 has"), "{error}");
        }
    }

    fn frames_flow_once_the_port_has_started(eal, config = with_null) {
        let mempool = mempool(&eal);
        let mut port = Port::by_name(&eal, "net_null0").unwrap();
        let (mut rx, mut tx) = port.configure(&two_queues(), &mempool).unwrap();
        assert_eq!((rx.len(), tx.len(), rx[1].queue(), tx[1].port()), (2, 2, 1, port.id()));
        let mut burst = Burst::new();
        assert_eq!(rx[0].receive(&mut burst), 0, "not started");
        burst.push(mempool.alloc().unwrap()).unwrap();
        assert_eq!((tx[0].send(&mut burst), burst.len()), (0, 1), "not started");
        burst.clear();

        port.start().unwrap();
        port.start().unwrap();
        assert!(port.link().up);
        assert_eq!(rx[0].receive(&mut burst), 64);
        assert_eq!(rx[0].receive(&mut burst), 0, "the burst is full");
        assert_eq!((burst[0].len(), burst[63].len(), burst[0].port()), (64, 64, port.id()));
        burst.free_front(60);
        assert_eq!(rx[1].receive(&mut burst), 60);
        assert_eq!(tx[1].send(&mut burst), 64);
        assert_eq!(port.stats().rx_packets, 124);
        assert_eq!(port.stats().tx_packets, 64);
        let xstats = port.xstats();
        let value = |wanted: &str| xstats.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        assert_eq!(value("rx_good_packets"), Some(124), "{xstats:?}");
        assert_eq!(value("rx_q1_packets"), Some(60), "{xstats:?}");
        drop((rx, tx, port, burst));
        assert_eq!(mempool.in_use(), 0);
    }

    fn port_does_not_stop_or_change_under_its_queues(eal, config = with_null) {
        let mempool = mempool(&eal);
        let mut port = Port::by_name(&eal, "net_null0").unwrap();
        let (rx, tx) = port.configure(&two_queues(), &mempool).unwrap();
        port.start().unwrap();
        drop(tx);
        assert_eq!(port.stop().unwrap_err().kind, ErrorKind::QueuesInUse);
        assert_eq!(port.configure(&two_queues(), &mempool).unwrap_err().kind, ErrorKind::QueuesInUse);
        drop(rx);
        port.stop().unwrap();
        let (mut rx, _tx) = port.configure(&two_queues(), &mempool).unwrap();
        port.start().unwrap();
        assert_eq!(rx[0].receive(&mut Burst::new()), 64);
    }

    fn queues_outlive_their_port(eal, config = with_null) {
        let mempool = mempool(&eal);
        let mut port = Port::by_name(&eal, "net_null0").unwrap();
        let (mut rx, _) = port.configure(&two_queues(), &mempool).unwrap();
        port.start().unwrap();
        drop(port);
        let mut burst = Burst::new();
        let mut queue = rx.pop().unwrap();
        assert_eq!(queue.receive(&mut burst), 64);
        assert_eq!(Port::by_name(&eal, "net_null0").unwrap_err().kind, ErrorKind::PortInUse);
        drop((rx, queue));
        assert_eq!(Port::by_name(&eal, "net_null0").unwrap_err().kind, ErrorKind::PortNotFound, "closed");
    }

    fn rss_is_used_where_the_device_has_it(eal, config = with_null) {
        let mempool = mempool(&eal);
        let mut port = Port::by_name(&eal, "net_null0").unwrap();
        assert!(!port.rss_active());
        drop(port.configure(&two_queues(), &mempool).unwrap());
        assert!(port.rss_active());
        port.start().unwrap();
        port.stop().unwrap();
        drop(port.configure(&PortConfig { rss: false, ..two_queues() }, &mempool).unwrap());
        assert!(!port.rss_active());
    }

    fn mac_and_mtu_can_be_read_and_set(eal, config = with_null) {
        let mempool = mempool(&eal);
        let mut port = Port::by_name(&eal, "net_null0").unwrap();
        port.set_mac([2, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(port.mac(), [2, 0, 0, 0, 0, 9]);
        assert_eq!(port.set_mac([0; 6]).unwrap_err().kind, ErrorKind::InvalidArgument);
        let config = PortConfig { mtu: Some(1400), all_multicast: true, ..two_queues() };
        drop(port.configure(&config, &mempool).unwrap());
        assert_eq!(port.mtu(), 1400);
    }

    fn device_can_be_attached_later(eal) {
        assert_eq!(Port::count(), 0);
        assert!(Port::all(&eal).is_empty());
        eal.attach("net_null7").unwrap();
        assert_eq!(Port::by_name(&eal, "net_null7").unwrap().info().driver, "net_null");
        assert_eq!(eal.attach("net_nonsense0").unwrap_err().kind, ErrorKind::PortNotFound);
    }
}

#[test]
fn redirection_table_names_the_queues_in_turn() {
    for (size, queues) in [(128, 3), (64, 1), (100, 7), (16, 2)] {
        let table = config::round_robin(size, queues);
        assert_eq!(table.len(), usize::from(size).div_ceil(64));
        let valid: u32 = table.iter().map(|group| group.mask.count_ones()).sum();
        assert_eq!(valid, u32::from(size), "one bit per slot");
        for slot in 0..size {
            let group = &table[usize::from(slot / 64)];
            assert_ne!(group.mask & 1 << (slot % 64), 0);
            assert_eq!(group.reta[usize::from(slot % 64)], slot % queues, "slot {slot} of {size}");
        }
    }
}
