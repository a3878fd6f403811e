use super::*;
use crate::mempool::{DEFAULT_DATA_ROOM, Mempool};

fn mempool(_eal: &Eal) -> Mempool {
    Mempool::new("frames", 255, 0, DEFAULT_DATA_ROOM, None).unwrap()
}

crate::eal_test! {
    fn full_ring_gives_frames_back(eal) {
        let mempool = mempool(&eal);
        let ring = Ring::new("small", 5, None).unwrap();
        let mut burst = Burst::new();
        assert!(mempool.alloc_bulk(&mut burst, 7));
        for (number, frame) in (0..).zip(&mut burst) {
            frame.copy_from(&[number]).unwrap();
        }
        assert_eq!(ring.enqueue_burst(&mut burst), 5);
        assert_eq!((ring.len(), burst.len(), burst[0].data()[0]), (5, 2, 5));
        let refused = ring.enqueue(burst.pop().unwrap()).unwrap_err();
        assert_eq!(refused.data(), [6]);
        assert_eq!(ring.dequeue_burst(&mut burst), 5);
        let order: Vec<u8> = burst.iter().map(|frame| frame.data()[0]).collect();
        assert_eq!(order, [5, 0, 1, 2, 3, 4]);
        assert!(ring.is_empty());
        assert_eq!(ring.dequeue_burst(&mut burst), 0);
        drop((burst, refused));
        assert_eq!(mempool.in_use(), 0);
    }

    fn dequeue_takes_no_more_than_the_burst_holds(eal) {
        let mempool = mempool(&eal);
        let ring = Ring::new("large", 128, None).unwrap();
        for _ in 0..100 {
            ring.enqueue(mempool.alloc().unwrap()).unwrap();
        }
        let mut burst = Burst::new();
        assert_eq!(ring.dequeue_burst(&mut burst), 64);
        assert_eq!(ring.dequeue_burst(&mut burst), 0);
        assert_eq!(ring.len(), 36);
    }

    fn dropped_ring_frees_its_frames_and_its_name(eal) {
        let mempool = mempool(&eal);
        let ring = Ring::new("short-lived", 100, None).unwrap();
        for _ in 0..100 {
            ring.enqueue(mempool.alloc().unwrap()).unwrap();
        }
        assert_eq!(Ring::new("short-lived", 8, None).unwrap_err().kind, ErrorKind::InvalidArgument);
        drop(ring);
        assert_eq!(mempool.in_use(), 0);
        Ring::new("short-lived", 8, None).unwrap();
    }

    fn one_way_ring_keeps_the_order_and_gives_back_what_it_cannot_hold(eal) {
        let mempool = mempool(&eal);
        let (mut sender, mut receiver) = Ring::one_way("one-way", 3, None).unwrap();
        for number in 0..3 {
            let mut frame = mempool.alloc().unwrap();
            frame.copy_from(&[number]).unwrap();
            sender.send(frame).unwrap();
        }
        let refused = sender.send(mempool.alloc().unwrap());
        assert!(refused.is_err());
        let mut burst = Burst::new();
        assert_eq!(receiver.receive(&mut burst), 3);
        assert_eq!(burst.iter().map(|frame| frame.data()[0]).collect::<Vec<_>>(), [0, 1, 2]);
        sender.send(burst.pop().unwrap()).unwrap();
        drop((sender, receiver, burst, refused));
        assert_eq!(mempool.in_use(), 0, "what is left in a ring goes home with it");
    }

    fn frames_cross_workers_in_order(eal) {
        let mempool = mempool(&eal);
        let ring = Ring::new("handover", 32, None).unwrap();
        let (there, source) = (ring.clone(), mempool.clone());
        let producer = eal.launch(0, move || {
            for number in 0..1000u16 {
                let mut frame = loop {
                    match source.alloc() {
                        Some(frame) => break frame,
                        None => std::thread::yield_now(),
                    }
                };
                frame.copy_from(&number.to_be_bytes()).unwrap();
                while let Err(refused) = there.enqueue(frame) {
                    frame = refused;
                    std::thread::yield_now();
                }
            }
        }).unwrap();
        let consumer = eal.launch(1, move || {
            let (mut burst, mut seen) = (Burst::new(), Vec::new());
            while seen.len() < 1000 {
                if ring.dequeue_burst(&mut burst) == 0 {
                    std::thread::yield_now();
                }
                seen.extend(burst.drain(..).map(|frame| u16::from_be_bytes(frame.data().try_into().unwrap())));
            }
            seen
        }).unwrap();
        producer.join().unwrap();
        assert_eq!(consumer.join().unwrap(), (0..1000).collect::<Vec<_>>());
        assert_eq!(mempool.in_use(), 0);
    }

    fn port_of_rings_receives_what_is_put_in_and_shows_what_is_sent(eal) {
        let mempool = mempool(&eal);
        let rings: Vec<_> = (0..4).map(|n| Ring::new(&format!("r{n}"), 8, None).unwrap()).collect();
        let mut port = ring_port(&eal, "lab", &[&rings[0], &rings[1]], &[&rings[2], &rings[3]]).unwrap();
        assert_eq!((port.name().as_str(), port.info().driver.as_str()), ("net_ring_lab", "net_ring"));
        let config = crate::port::PortConfig { rx_queues: 2, tx_queues: 2, ..Default::default() };
        let (mut rx, mut tx) = port.configure(&config, &mempool).unwrap();
        port.start().unwrap();

        let mut frame = mempool.alloc().unwrap();
        frame.copy_from(b"to queue 1").unwrap();
        rings[1].enqueue(frame).unwrap();
        let mut burst = Burst::new();
        assert_eq!(rx[0].receive(&mut burst), 0);
        assert_eq!(rx[1].receive(&mut burst), 1);
        assert_eq!(burst[0].data(), b"to queue 1");
        assert_eq!(tx[0].send(&mut burst), 1);
        assert_eq!((burst.len(), rings[2].len(), rings[3].len()), (0, 1, 0));

        // The port keeps its rings, in whatever order the handles go.
        drop(rings);
        assert_eq!(tx[1].send(&mut burst), 0);
        drop((port, rx, tx));
        assert_eq!(mempool.in_use(), 0);
    }

    fn partial_send_keeps_the_tail_in_order(eal) {
        let mempool = mempool(&eal);
        let (rx_ring, tx_ring) = (Ring::new("in", 8, None).unwrap(), Ring::new("out", 5, None).unwrap());
        let mut port = ring_port(&eal, "narrow", &[&rx_ring], &[&tx_ring]).unwrap();
        let (_rx, mut tx) = port.configure(&crate::port::PortConfig::default(), &mempool).unwrap();
        port.start().unwrap();
        let mut burst = Burst::new();
        assert!(mempool.alloc_bulk(&mut burst, 8));
        for (number, frame) in (0..).zip(&mut burst) {
            frame.copy_from(&[number; 60]).unwrap();
        }
        assert_eq!(tx[0].send(&mut burst), 5);
        let left: Vec<u8> = burst.iter().map(|frame| frame.data()[0]).collect();
        assert_eq!(left, [5, 6, 7]);
        assert_eq!(tx[0].send(&mut burst), 0);
        let mut sent = Burst::new();
        assert_eq!(tx_ring.dequeue_burst(&mut sent), 5);
        assert_eq!(tx[0].send(&mut burst), 3);
        assert!(burst.is_empty());
        drop(sent);
        assert_eq!(mempool.in_use(), 3);
    }

    fn port_of_no_rings_is_refused(eal) {
        let ring = Ring::new("only", 8, None).unwrap();
        assert_eq!(ring_port(&eal, "none", &[], &[&ring]).unwrap_err().kind, ErrorKind::InvalidArgument);
        let _first = ring_port(&eal, "twice", &[&ring], &[&ring]).unwrap();
        assert!(ring_port(&eal, "twice", &[&ring], &[&ring]).is_err());
    }
}

#[test]
fn nothing_is_made_without_the_eal() {
    crate::test_support::only_in_child(concat!(module_path!(), "::nothing_is_made_without_the_eal"), || {
        assert_eq!(Ring::new("early", 8, None).unwrap_err().kind, ErrorKind::NotInitialised);
        let mempool = Mempool::new("early", 8, 0, DEFAULT_DATA_ROOM, None);
        assert_eq!(mempool.unwrap_err().kind, ErrorKind::NotInitialised);
    });
}
