use super::*;
use crate::eal::Eal;
use crate::mempool::{DEFAULT_DATA_ROOM, Mempool};
use crate::net::EthernetHeader;

/// Frame bytes that a fresh buffer of the default room takes.
const ROOM: usize = (DEFAULT_DATA_ROOM - HEADROOM) as usize;

fn mempool(_eal: &Eal) -> Mempool {
    Mempool::new("frames", 255, 32, DEFAULT_DATA_ROOM, None).unwrap()
}

crate::eal_test! {
    fn fresh_frame_is_empty_with_full_headroom(eal) {
        let mempool = mempool(&eal);
        let mut frame = mempool.alloc().unwrap();
        assert!(frame.is_empty() && frame.is_contiguous());
        assert_eq!((frame.packet_len(), frame.port()), (0, u16::MAX));
        assert_eq!((frame.rss_hash(), frame.vlan_tci(), frame.bad_ip_checksum()), (None, None, false));
        assert_eq!((frame.headroom(), frame.tailroom()), (usize::from(HEADROOM), ROOM));
        assert!(frame.prepend(usize::from(HEADROOM) + 1).is_none());
        assert_eq!(frame.len(), 0, "a refused prepend changes nothing");
        assert_eq!(frame.prepend(usize::from(HEADROOM)).unwrap().len(), usize::from(HEADROOM));
        assert!(frame.prepend(1).is_none());
    }

    fn frames_do_not_all_begin_at_the_same_place_of_a_page(eal) {
        let mempool = mempool(&eal);
        let frames: Vec<_> = std::iter::from_fn(|| mempool.alloc()).collect();
        assert_eq!(frames.len(), 255);
        let places = frames.iter().map(|frame| frame.data().as_ptr() as usize % 4096);
        assert!(places.collect::<std::collections::HashSet<_>>().len() >= 32);
    }

    fn append_stops_at_the_end_of_the_buffer(eal) {
        let mempool = mempool(&eal);
        let mut frame = mempool.alloc().unwrap();
        assert!(frame.append(ROOM + 1).is_none());
        assert!(frame.append(usize::MAX).is_none());
        frame.append(ROOM - 1).unwrap().fill(7);
        assert_eq!(frame.append(1).unwrap(), [0u8; 1].as_slice());
        assert!(frame.append(1).is_none());
        assert_eq!(frame.tailroom(), 0);
        assert_eq!((frame.len(), frame.packet_len()), (ROOM, ROOM));
        assert_eq!(frame.data()[ROOM - 2], 7);
    }

    fn adjust_and_prepend_move_the_front(eal) {
        let mempool = mempool(&eal);
        let mut frame = mempool.alloc().unwrap();
        frame.copy_from(b"outer inner").unwrap();
        frame.adjust(6).unwrap();
        assert_eq!(frame.data(), b"inner");
        assert!(frame.adjust(6).is_none());
        frame.prepend(3).unwrap().copy_from_slice(b"new");
        assert_eq!(frame.data(), b"newinner");
        assert_eq!(frame.packet_len(), 8);
        frame.truncate(3).unwrap();
        assert_eq!(frame.data(), b"new");
        assert!(frame.truncate(4).is_none());
        assert_eq!(frame.packet_len(), 3);
    }

    fn copy_from_restores_the_headroom_or_refuses(eal) {
        let mempool = mempool(&eal);
        let mut frame = mempool.alloc().unwrap();
        frame.copy_from(&[1; 100]).unwrap();
        frame.adjust(50).unwrap();
        assert!(frame.copy_from(&[2; ROOM + 1]).is_none());
        assert_eq!(frame.data(), [1; 50]);
        frame.copy_from(&[2; ROOM]).unwrap();
        assert_eq!(frame.data(), [2; ROOM]);
        assert!(frame.prepend(usize::from(HEADROOM)).is_some());
    }

    fn views_end_with_the_frame(eal) {
        let mempool = mempool(&eal);
        let mut frame = mempool.alloc().unwrap();
        frame.copy_from(&[0x11; 20]).unwrap();
        frame.view_mut::<EthernetHeader>(6).unwrap().destination = [9; 6];
        assert_eq!(frame.view::<EthernetHeader>(6).unwrap().destination, [9; 6]);
        assert_eq!(frame.data()[5..13], [0x11, 9, 9, 9, 9, 9, 9, 0x11]);
        for offset in [7, 20, 21, usize::MAX] {
            assert!(frame.view::<EthernetHeader>(offset).is_none(), "offset {offset}");
            assert!(frame.view_mut::<EthernetHeader>(offset).is_none(), "offset {offset}");
        }
    }

    fn dropped_frames_come_home_and_an_empty_mempool_gives_none(eal) {
        let mempool = mempool(&eal);
        assert_eq!((mempool.size(), mempool.available(), mempool.in_use()), (255, 255, 0));
        let frames: Vec<_> = std::iter::from_fn(|| mempool.alloc()).collect();
        assert_eq!((frames.len(), mempool.in_use()), (255, 255));
        assert!(mempool.alloc().is_none());
        drop(frames);
        assert_eq!(mempool.in_use(), 0);
    }

    fn frame_crosses_threads_by_hand_over(eal) {
        let mempool = mempool(&eal);
        let mut frame = mempool.alloc().unwrap();
        frame.copy_from(b"across").unwrap();
        let parcel = frame.hand_over();
        let there = std::thread::spawn(move || parcel.take().data().to_vec()).join().unwrap();
        assert_eq!(there, b"across");
        let unopened = mempool.alloc().unwrap().hand_over();
        std::thread::spawn(move || drop(unopened)).join().unwrap();
        assert_eq!(mempool.in_use(), 0);
    }
}

#[test]
fn a_frame_is_one_pointer() {
    assert_eq!(size_of::<Option<Mbuf>>(), size_of::<usize>());
}
