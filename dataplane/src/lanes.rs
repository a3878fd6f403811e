//! A burst on its way through the stages: a struct of arrays, owned by the worker and reused.

use std::num::NonZeroU64;

use dpdk::burst::{BURST, Burst};

use crate::connection::EntryId;
use crate::handover::{Came, Journey};
use crate::parse::Packet;
use crate::service::{Method, ServerId};
use crate::verdict::Verdict;

/// What has been decided about a frame so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Nothing yet: the next stage looks at it.
    Undecided,
    /// Bound for this real server: the stage of the method sends it there.
    Server(ServerId, Method),
    /// To be sent on this port, counted under this verdict.
    Send(u16, Verdict),
    /// To be handed to the kernel.
    Kernel,
    /// To be handed to the kernel: a real server's answer to a health check.
    Answer,
    /// To be handed to this worker, whose verdict it gets.
    HandOver(u8),
    /// To be kept until the first fragment of its datagram comes.
    Hold,
    /// To be freed, counted under this verdict.
    Drop(Verdict),
}

/// Which lanes are in a set of bits, lowest first. Cost: five instructions a lane.
#[inline(always)]
pub fn each(lanes: u64) -> impl Iterator<Item = usize> {
    let mut left = lanes;
    std::iter::from_fn(move || {
        let lane = NonZeroU64::new(left)?.trailing_zeros() as usize;
        left &= left - 1;
        Some(lane)
    })
}

/// Whether a lane is in a set of bits.
#[inline(always)]
pub const fn has(lanes: u64, lane: usize) -> bool {
    lanes >> (lane & 63) & 1 != 0
}

/// A bit for each lane with a [plain](crate::plain) packet, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plain {
    /// TCP over IPv4.
    pub tcp_v4: u64,
    /// UDP over IPv4.
    pub udp_v4: u64,
    /// TCP over IPv6.
    pub tcp_v6: u64,
    /// UDP over IPv6.
    pub udp_v6: u64,
}

impl Plain {
    /// All of them.
    #[inline]
    pub const fn all(&self) -> u64 {
        self.tcp_v4 | self.udp_v4 | self.tcp_v6 | self.udp_v6
    }
}

/// Up to [`BURST`] frames with what each stage found out about them; index `i` is the same frame in every array.
#[derive(Debug)]
pub struct Lanes {
    /// The frames.
    pub frames: Burst,
    /// What parse found; only for lanes that it read.
    pub packets: [Packet; BURST],
    /// Lanes with plain packets, which parse need not read if the established stage sends them.
    pub plain: Plain,
    /// How many lanes, from the first one on, have been looked at for plain packets.
    pub glanced: usize,
    /// A bit for each lane with a plain packet that most likely answers a masqueraded connection: so its guess was made.
    pub answers: u64,
    /// Whether more plain packets of the burst before were of IPv6 than of IPv4.
    pub v6_first: bool,
    /// A bit for each lane whose packet is a flow, and which is still to be decided about.
    pub flows: u64,
    /// A bit for each lane whose packet is no flow, and which the classify stage is to decide about.
    pub others: u64,
    /// A bit for each lane that the established stages decided to send.
    pub through: u64,
    /// Connections with a packet that is not plain, by [`bit`](crate::established::bit): packets behind it stay behind it.
    pub held: u64,
    /// A bit for each port by which it did.
    pub through_ports: u64,
    /// A bit for each lane whose packet has no entry, and which the schedule stage is to decide about.
    pub missed: u64,
    /// A bit for each lane whose frame the tunnel stage is to send.
    pub tunnelled: u64,
    /// A bit for each lane whose frame the masquerade stage is to send.
    pub masqueraded: u64,
    /// A bit for each lane with a masqueraded packet that may be longer than the link that it leaves by takes.
    pub long: u64,
    /// A bit for each lane whose packet is the first fragment of a flow's.
    pub firsts: u64,
    /// A bit for each lane whose ICMP error is about a service, but about no connection, and which the schedule stage is to decide about.
    pub unrelated: u64,
    /// A bit for each lane whose packet comes from an address of ours, and may be an answer that passes the director.
    pub own_sources: u64,
    /// The key's hash; only for plain packets and flows.
    pub hashes: [u64; BURST],
    /// The entry that a flow most likely has, by a look at the index alone.
    pub guesses: [EntryId; BURST],
    /// How many lanes, from the first one on, have a guess.
    pub guessed: usize,
    /// What the guesses were made on: the method that was usual, and the [state](crate::connection::ConnectionTable::changes) of the index.
    pub guessed_on: (Method, u32),
    /// For how many lanes, from the first one on, what lies beside the guess has been asked for.
    pub asked: usize,
    /// The connection entry of a flow, where the established stage found one but left the packet.
    pub entries: [Option<EntryId>; BURST],
    /// Which workers each frame has seen; only where there are several.
    pub journeys: [Journey; BURST],
    /// The port by which frames come whose journeys all of these are, while that is so.
    pub journeys_from: Option<usize>,
    /// What has been decided.
    pub fates: [Fate; BURST],
}

impl Lanes {
    /// An empty burst.
    pub fn new() -> Self {
        Self {
            frames: Burst::new(),
            packets: [Packet::NONE; BURST],
            plain: Plain::default(),
            glanced: 0,
            answers: 0,
            v6_first: false,
            flows: 0,
            others: 0,
            through: 0,
            held: 0,
            through_ports: 0,
            missed: 0,
            tunnelled: 0,
            masqueraded: 0,
            long: 0,
            firsts: 0,
            unrelated: 0,
            own_sources: 0,
            hashes: [0; BURST],
            guesses: [EntryId::NONE; BURST],
            guessed: 0,
            guessed_on: (Method::DirectRouting, 0),
            asked: 0,
            entries: [None; BURST],
            journeys: [Journey::begin(0, 0); BURST],
            journeys_from: None,
            fates: [Fate::Undecided; BURST],
        }
    }

    /// How many frames the burst holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// A bit for each lane that holds a frame.
    #[inline]
    pub fn all(&self) -> u64 {
        if self.is_empty() { 0 } else { u64::MAX >> (BURST - self.len()) }
    }

    /// Forgets what was found out ahead about frames that are gone.
    #[inline]
    pub fn begin(&mut self) {
        self.v6_first = self.plain.tcp_v6 > self.plain.tcp_v4;
        (self.plain, self.answers) = (Plain::default(), 0);
        (self.glanced, self.guessed, self.asked) = (0, 0, 0);
    }

    /// The port by which all frames are to be sent to real servers, if all are, and by one port.
    #[inline]
    pub fn leaves_whole(&self) -> Option<u16> {
        let Fate::Send(port, Verdict::Forwarded) = *self.fates.first()? else { return None };
        let others = self.through_ports & !(1 << (port & 63));
        let same = |i: usize| self.fates[i] == Fate::Send(port, Verdict::Forwarded);
        (others == 0 && each(self.all() & !self.through).all(same)).then_some(port)
    }

    /// Frames that worker `worker` received by `port` begin their journeys. Cost: one comparison, unless the burst before came elsewhere
    /// or one of its frames was handed over.
    #[inline]
    pub fn set_out(&mut self, worker: usize, port: usize, came: Came) {
        if came == Came::FromWorker {
            self.journeys_from = None;
        } else if self.journeys_from != Some(port) {
            self.journeys = [Journey::begin(worker, port); BURST];
            self.journeys_from = Some(port);
        }
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
