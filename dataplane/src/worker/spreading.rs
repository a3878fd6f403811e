//! A port with fewer queues than there are workers, or whose device does not spread flows.
//!
//! Who reads a queue keeps its own share of the flows and hands the others' frames on, over the rings of the hand-over. Who has no transmit
//! queue gives what it sends to a worker that has one, over a ring of the port's. Neither loses a frame without a verdict: a hand-over
//! that finds no room drops it as [`Verdict::HandOverFull`], and a way out without room as [`Verdict::TxFull`].
//!
//! A director whose ports all have a queue for each worker pays two comparisons a burst for it.

use dpdk::burst::{BURST, Burst};
use dpdk::net::{ether_type, protocol};

use super::Worker;
use crate::connection::{Addresses, Hasher, Key};
use crate::handover::Journey;
use crate::parse::L3;
use crate::verdict::Verdict;

/// The words of a flow that a worker is chosen by: both addresses, and the ports where the packet is no fragment and its protocol has them.
/// `None` for what is no IP packet. Cost: a few loads from the header's cache line.
fn flow(frame: &[u8]) -> Option<Key> {
    let at = |from: usize| frame.get(from..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    let long = |from: usize| frame.get(from..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let (addresses, kind, ports, whole) = match u16::from_be_bytes(*frame.get(12..)?.first_chunk()?) {
        ether_type::IPV4 => {
            let header = usize::from(frame.get(L3)? & 15) * 4;
            let fragment = u16::from_be_bytes(*frame.get(L3 + 6..)?.first_chunk()?) & 0x3fff;
            (Addresses::V4(long(L3 + 12)?), *frame.get(L3 + 9)?, L3 + header, fragment == 0)
        }
        ether_type::IPV6 => {
            let words = [long(L3 + 8)?, long(L3 + 16)?, long(L3 + 24)?, long(L3 + 32)?];
            (Addresses::V6(words), *frame.get(L3 + 6)?, L3 + 40, true)
        }
        _ => return None,
    };
    let ports = if whole && matches!(kind, protocol::TCP | protocol::UDP) { at(ports).unwrap_or(0) } else { 0 };
    // Fragments and other protocols of two hosts meet on one worker, whatever they carry, as a device's hash brings them.
    Some(Key::of(addresses, ports, if ports == 0 { 0 } else { kind }))
}

/// The worker, of `workers`, that a frame's flow belongs to; `None` for what is no flow.
fn owner(hasher: &Hasher, workers: u8, frame: &[u8]) -> Option<u8> {
    let hash = hasher.hash(&flow(frame)?) >> 32;
    // The high half of a product of less than 2^40 is less than 2^8.
    u8::try_from((hash * u64::from(workers)) >> 32).ok()
}

impl Worker {
    /// Of the frames in the lanes, which port `port` received, hands those of other workers' flows to them.
    #[inline(never)]
    pub(super) fn hand_on(&mut self, port: usize) {
        let Some(handover) = &mut self.handover else { return };
        let (workers, here) = (handover.workers(), self.index);
        let (mut own, mut refused) = (Burst::new(), Burst::new());
        let mut handed = 0_u64;
        for frame in self.lanes.frames.drain(..) {
            let to = owner(handover.spreading(), workers, frame.data()).filter(|to| usize::from(*to) != here);
            let Some(to) = to else {
                // No more than came, which is a burst.
                let _ = own.push(frame);
                continue;
            };
            match handover.give(to, frame, Journey::given(to, port)) {
                Ok(()) => handed += 1,
                Err(frame) => _ = refused.push(frame),
            }
        }
        handover.ring_bells();
        own.move_front(BURST, &mut self.lanes.frames);
        let report = self.end.report();
        report.received[port].add(handed + refused.len() as u64);
        report.handed_over.add(handed);
        report.verdicts[port].add(Verdict::HandOverFull, refused.len() as u64);
    }

    /// Sends what workers without a transmit queue have for the ports of this one; whether there was anything.
    #[inline(never)]
    pub(super) fn send_for_others(&mut self) -> bool {
        let sent: u64 = self.outgoing.iter_mut().map(super::Outgoing::send_relayed).sum();
        if sent != 0 {
            self.end.report().sent_for_others.add(sent);
        }
        sent != 0
    }
}

#[cfg(test)]
mod tests {
    use dpdk::net::protocol::{TCP, UDP};

    use super::*;

    /// A frame of `kind` with this IP packet.
    fn frame(kind: u16, packet: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &kind.to_be_bytes(), packet].concat()
    }

    fn v4(protocol: u8, fragment: u16, source: u8, ports: [u8; 4]) -> Vec<u8> {
        let [high, low] = fragment.to_be_bytes();
        let header = [0x45, 0, 0, 28, 0, 1, high, low, 64, protocol, 0, 0, 10, 0, 0, source, 10, 0, 0, 88];
        frame(0x0800, &[&header[..], &ports, &[0; 4]].concat())
    }

    fn v6(protocol: u8, source: u8, ports: [u8; 4]) -> Vec<u8> {
        let mut header = [0_u8; 40];
        (header[0], header[6], header[23], header[39]) = (0x60, protocol, source, 88);
        frame(0x86dd, &[&header[..], &ports, &[0; 4]].concat())
    }

    #[test]
    fn flow_is_told_by_addresses_and_ports() {
        for of in [|source, ports| v4(TCP, 0, source, ports), |source, ports| v6(UDP, source, ports)] {
            let one = flow(&of(1, [0, 1, 0, 80]));
            assert_eq!(one, flow(&of(1, [0, 1, 0, 80])));
            assert_ne!(one, flow(&of(2, [0, 1, 0, 80])));
            assert_ne!(one, flow(&of(1, [0, 2, 0, 80])));
        }
        let key = flow(&v4(TCP, 0, 1, [0, 1, 0, 80])).unwrap();
        assert_eq!((key.client_port, key.virtual_port, key.protocol), (1, 80, TCP));
    }

    #[test]
    fn fragments_and_errors_of_two_hosts_go_together() {
        let alike = [v4(UDP, 0x2000, 1, [0, 1, 0, 80]), v4(UDP, 7, 1, [9; 4]), v4(1, 0, 1, [3, 1, 0, 0])];
        assert!(alike.iter().all(|frame| flow(frame) == flow(&alike[0])));
    }

    #[test]
    fn what_is_cut_short_or_no_ip_is_nobodys_or_somebodys_and_never_a_panic() {
        assert_eq!(flow(&frame(0x0806, &[0; 46])), None);
        for whole in [v4(TCP, 0, 1, [0, 1, 0, 80]), v6(TCP, 1, [0, 1, 0, 80])] {
            for length in 0..whole.len() {
                let _ = flow(&whole[..length]);
            }
        }
    }

    #[test]
    fn flows_are_shared_out_evenly() {
        let hasher = Hasher::new([1, 2, 3, 4]);
        let mut shares = [0_u32; 3];
        for port in 0..3000_u16 {
            let [high, low] = port.to_be_bytes();
            shares[usize::from(owner(&hasher, 3, &v4(TCP, 0, 1, [high, low, 0, 80])).unwrap())] += 1;
        }
        assert!(shares.iter().all(|share| (900..1100).contains(share)), "{shares:?}");
    }
}
