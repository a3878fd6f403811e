//! VLANs: each is a port of its own to every stage, and shares the queues of the port that its frames come by.
//!
//! A received frame loses its tags before the first stage sees it (IEEE 802.1Q), a sent one gets those of its way's port. Ports
//! are numbered in the order of the configuration, and VLANs after them. A port without VLANs pays for a look at a list's length.

use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk::burst::{BURST, Burst};
use dpdk::mbuf::Mbuf;
use dpdk::net::{EthernetHeader, VlanTag, ether_type};
use dpdk::ring::Ring;

/// Both MACs of a frame, in front of its tags.
const MACS: usize = 12;

/// What tells a VLAN's frames: one tag, or a service provider's with a customer's behind it (IEEE 802.1ad).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tags {
    /// VLAN id of the outer tag, 1 to 4094, where there are two. It is sent with the ether type of 802.1ad (0x88a8), and received
    /// with that of 802.1Q (0x8100) too.
    pub outer: Option<u16>,
    /// VLAN id of the only tag or the inner one, 1 to 4094.
    pub id: u16,
}

/// `100`, or with two tags `100.300`.
impl std::fmt::Display for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.outer {
            Some(outer) => write!(f, "{outer}.{}", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// A VLAN as a worker is given it.
#[derive(Debug)]
pub struct VlanQueues {
    /// Index of the port whose queues it shares.
    pub port: u16,
    /// Its tags.
    pub tags: Tags,
    /// Frames for the kernel.
    pub to_kernel: Arc<Ring>,
    /// The kernel's frames for the wire: one worker sends them, the others have `None`.
    pub from_kernel: Option<Arc<Ring>>,
}

/// The VLANs of a worker, with the frames of a burst that belong to them.
#[derive(Debug)]
pub struct Vlans {
    /// The number of ports: that of the first VLAN.
    first: usize,
    all: Vec<(u16, Tags)>,
    /// Frames without their tags, with the number of the VLAN that each came by.
    waiting: ArrayVec<(u16, Mbuf), BURST>,
}

impl Vlans {
    /// VLANs after `ports` ports, each with the index of the port that it is on.
    pub fn new(ports: usize, all: Vec<(u16, Tags)>) -> Self {
        Self { first: ports, all, waiting: ArrayVec::new() }
    }

    /// Whether there is no VLAN at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes the frames of VLANs out of what port `port` received. Those with tags that it has no VLAN for stay, as they are;
    /// a priority tag (VLAN id 0) is no VLAN's, and only goes.
    pub fn sort(&mut self, port: u16, frames: &mut Burst) {
        let mut others = Burst::new();
        for mut frame in frames.drain(..) {
            match self.vlan_of(port, &frame) {
                Some((vlan, tags)) if untag(&mut frame, tags).is_some() && vlan != port => {
                    let _ = self.waiting.try_push((vlan, frame));
                }
                _ => {
                    let _ = others.push(frame);
                }
            }
        }
        others.move_front(BURST, frames);
    }

    /// Puts frames of one VLAN into `frames`, in the order in which they came, and gives its number; `None` when none are left.
    pub fn next(&mut self, frames: &mut Burst) -> Option<u16> {
        let vlan = self.waiting.first()?.0;
        let mut others = ArrayVec::<_, BURST>::new();
        for (number, frame) in self.waiting.drain(..) {
            // There is room for both: no more wait than a burst holds.
            if number == vlan {
                let _ = frames.push(frame);
            } else {
                let _ = others.try_push((number, frame));
            }
        }
        self.waiting.extend(others.drain(..));
        Some(vlan)
    }

    /// Gives a frame that is to leave by `vlan` its tags, and the index of the port that it leaves by; `None` for what is no
    /// VLAN's number, or a frame without room in front of it.
    pub fn tag(&self, vlan: u16, frame: &mut Mbuf) -> Option<u16> {
        let &(port, tags) = self.all.get(usize::from(vlan).checked_sub(self.first)?)?;
        let count = if tags.outer.is_some() { 2 } else { 1 };
        let added = count * VlanTag::LEN;
        if frame.len() < EthernetHeader::LEN {
            return None;
        }
        frame.prepend(added)?;
        let head = frame.data_mut().get_mut(..added + MACS)?;
        head.copy_within(added.., 0);
        let outer = tags.outer.map(|id| (ether_type::QINQ, id));
        let words = outer.into_iter().chain([(ether_type::VLAN, tags.id)]).flat_map(|(kind, id)| [kind, id]);
        for (place, word) in head.get_mut(MACS..)?.as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        Some(port)
    }

    /// The number of the VLAN that a frame of port `port` belongs to, or `port` itself for a priority tag, and how many tags it has.
    fn vlan_of(&self, port: u16, frame: &Mbuf) -> Option<(u16, usize)> {
        let word = |at: usize| frame.data().get(at..at + 2).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b));
        let tag = |n: usize| {
            let at = MACS + n * VlanTag::LEN;
            matches!(word(at)?, ether_type::VLAN | ether_type::QINQ).then_some(())?;
            Some(word(at + 2)? & 0xfff)
        };
        let first = tag(0)?;
        let (tags, count) = match tag(1) {
            Some(second) => (Tags { outer: Some(first), id: second }, 2),
            None if first == 0 => return Some((port, 1)),
            None => (Tags { outer: None, id: first }, 1),
        };
        let at = self.all.iter().position(|vlan| *vlan == (port, tags))?;
        Some((u16::try_from(self.first + at).ok()?, count))
    }
}

/// Takes `count` tags off a frame.
fn untag(frame: &mut Mbuf, count: usize) -> Option<()> {
    let removed = count * VlanTag::LEN;
    let head = frame.data_mut().get_mut(..MACS + removed)?;
    head.copy_within(..MACS, removed);
    frame.adjust(removed)
}
