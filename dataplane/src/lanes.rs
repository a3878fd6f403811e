//! A burst on its way through the stages: a struct of arrays, owned by the worker and reused.

use dpdk::burst::{BURST, Burst};

use crate::connection::EntryId;
use crate::parse::Packet;
use crate::service::ServerId;
use crate::verdict::Verdict;

/// What has been decided about a frame so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Nothing yet: the next stage looks at it.
    Undecided,
    /// Bound for this real server: the forward stage sends it there.
    Server(ServerId),
    /// To be sent on this port, counted under this verdict.
    Send(u16, Verdict),
    /// To be handed to the kernel.
    Kernel,
    /// To be freed, counted under this verdict.
    Drop(Verdict),
}

/// Up to [`BURST`] frames with what each stage found out about them; index `i` is the same frame in every array.
#[derive(Debug)]
pub struct Lanes {
    /// The frames.
    pub frames: Burst,
    /// What parse found.
    pub packets: [Packet; BURST],
    /// A bit for each lane whose packet is no flow, and which the classify stage is to decide about.
    pub others: u64,
    /// A bit for each lane whose packet has no entry, and which the schedule stage is to decide about.
    pub missed: u64,
    /// A bit for each lane whose frame the tunnel stage is to send.
    pub tunnelled: u64,
    /// A bit for each lane whose frame the masquerade stage is to send.
    pub masqueraded: u64,
    /// The key's hash; only for undecided flows.
    pub hashes: [u64; BURST],
    /// The connection entry, where lookup found one; until then a guess.
    pub entries: [Option<EntryId>; BURST],
    /// What has been decided.
    pub fates: [Fate; BURST],
}

impl Lanes {
    /// An empty burst.
    pub fn new() -> Self {
        Self {
            frames: Burst::new(),
            packets: [Packet::NONE; BURST],
            others: 0,
            missed: 0,
            tunnelled: 0,
            masqueraded: 0,
            hashes: [0; BURST],
            entries: [None; BURST],
            fates: [Fate::Undecided; BURST],
        }
    }

    /// How many frames the burst holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self::new()
    }
}
