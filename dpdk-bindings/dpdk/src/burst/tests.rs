use super::*;
use crate::eal::Eal;
use crate::mempool::{DEFAULT_DATA_ROOM, Mempool};

fn mempool(_eal: &Eal) -> Mempool {
    Mempool::new("frames", 255, 0, DEFAULT_DATA_ROOM, None).unwrap()
}

/// A burst of frames whose first byte numbers them.
fn numbered(mempool: &Mempool, count: u8) -> Burst {
    let mut burst = Burst::new();
    assert!(mempool.alloc_bulk(&mut burst, usize::from(count)));
    for (number, frame) in (0..count).zip(&mut burst) {
        frame.copy_from(&[number; 60]).unwrap();
    }
    burst
}

fn numbers(burst: &Burst) -> Vec<u8> {
    burst.iter().map(|frame| frame.data()[0]).collect()
}

crate::eal_test! {
    fn alloc_bulk_is_all_or_nothing(eal) {
        let mempool = mempool(&eal);
        let mut burst = Burst::new();
        assert!(mempool.alloc_bulk(&mut burst, 0));
        assert!(mempool.alloc_bulk(&mut burst, BURST - 1));
        assert!(!mempool.alloc_bulk(&mut burst, 2), "no room");
        assert!(mempool.alloc_bulk(&mut burst, 1) && burst.is_full());
        let mut others = [Burst::new(), Burst::new(), Burst::new()];
        assert!(mempool.alloc_bulk(&mut others[0], BURST));
        assert!(mempool.alloc_bulk(&mut others[1], BURST));
        assert!(!mempool.alloc_bulk(&mut others[2], BURST), "one too few left");
        assert_eq!((others[2].len(), mempool.in_use()), (0, 3 * 64));
        assert!(burst.push(mempool.alloc().unwrap()).is_err());
        drop((burst, others));
        assert_eq!(mempool.in_use(), 0);
    }

    fn freeing_the_front_keeps_the_rest_in_order(eal) {
        let mempool = mempool(&eal);
        let mut burst = numbered(&mempool, 10);
        burst.free_front(0);
        assert_eq!(burst.len(), 10);
        burst.free_front(7);
        assert_eq!(numbers(&burst), [7, 8, 9]);
        assert_eq!(mempool.in_use(), 3);
        burst.free_front(100);
        assert!(burst.is_empty());
        assert_eq!(mempool.in_use(), 0);
    }

    fn frames_move_between_bursts_and_none_is_lost(eal) {
        let mempool = mempool(&eal);
        let (mut from, mut to) = (numbered(&mempool, 40), numbered(&mempool, 60));
        assert_eq!(from.move_front(3, &mut to), 3);
        assert_eq!(from.move_front(40, &mut to), 1, "the other is full");
        assert_eq!(to.get(60).unwrap().data()[0], 0);
        assert_eq!((from[0].data()[0], from.len(), to.len()), (4, 36, 64));
        assert_eq!(from.swap_remove(0).unwrap().data()[0], 4);
        assert_eq!((from[0].data()[0], from.len()), (39, 35));
        let front = from.take_front(2);
        assert_eq!((numbers(&front), from[0].data()[0], from.len()), (vec![39, 5], 6, 33));
        drop(front);
        assert!(from.swap_remove(33).is_none());
        let last = from.drain(..).next_back().unwrap();
        assert_eq!((last.data()[0], from.len()), (38, 0));
        assert_eq!(mempool.in_use(), 65, "frames left in a drain are freed");
        drop(last);
        to.clear();
        assert_eq!(mempool.in_use(), 0);
    }
}
