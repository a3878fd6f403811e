//! Cases: workers and the reference director live through the same frames, commands and hours, and must agree on all of it.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, clippy::too_many_lines, missing_docs)]

pub mod agree;
pub mod answers;
pub mod choices;
pub mod frames;
pub mod kinds;
pub mod network;
pub mod pieces;
pub mod rig;
pub mod settings;
pub mod world;

use std::collections::BTreeMap;

use dataplane::command::{Batch, ConnectionFilter};
use dataplane::service::{Protocol, ServerId, ServiceKey};
use dataplane::tick::Tick;

use crate::reference::Director;
use crate::reference::connections::Key;
use crate::reference::turn::{Arrivals, BURST, Frames};
use choices::Choices;
use frames::Places;
use network::Network;
use rig::{Bench, Counters, MACS, MOST_WORKERS, Plan, Rig, SHARED};
use world::World;

/// What became of frames: how many got each verdict, and how many of our own were sent.
pub type Tally = BTreeMap<&'static str, u64>;

/// One case of about `length` frames from beginning to end; gives how many there were. Panics where the two differ.
pub fn case(rig: &mut Rig, mut choices: Choices<'_>, length: usize, tally: &mut Tally) -> usize {
    let c = &mut choices;
    let start = c.pick(&[1000, u32::MAX - 3_000, u32::MAX - 200_000, 0x7fff_ff00]);
    // Of some cases only what holds for whatever happens is asked: no reference says which entries `drop_entry` takes at random.
    let exact = !c.one_in(16);
    let roomy = exact && !c.one_in(6);
    let connections = if roomy { 4000 } else { c.pick(&[1000, 300, 40, 8, 1]) };
    let half_open = if roomy { connections } else { connections / c.pick(&[4, 1, 2, 10]) };
    // A case is of single frames, of whole bursts, of several at once, or of all.
    let most = c.pick(&[1, 1, 8, BURST, 4 * BURST]);
    let workers = c.pick(&[1, 1, 2, MOST_WORKERS]);
    let network = Network::choose(c);
    let vlans = network.vlans.clone();
    let plan = Plan { workers, vlans: &vlans, connections, half_open, start: Tick(start) };
    let directors = crate::reference::directors(&MACS, &vlans, (connections, half_open), &plan.seeds(), SHARED);
    let bench = rig.bench(&plan);
    let mut case = Case {
        exact,
        capacity: connections,
        most,
        lossy: c.one_in(8),
        directors,
        world: World::new(network, workers, most == 1 && roomy, exact),
        places: Places { ours: network::our_addresses(), services: Vec::new(), recent: Vec::new(), last: None },
        tally,
        frames: 0,
        steps: 0,
        counters: bench.counters(),
        last_sent: Vec::new(),
        bench,
    };
    for director in &mut case.directors {
        director.pass(start);
    }
    let first = case.world.begin(c);
    case.apply(first);
    while case.frames < length && !c.is_over() {
        case.steps += 1;
        match c.below(64) {
            0..52 => case.frames_come(c),
            52..56 => case.time_passes(c),
            56..62 => {
                // A control plane gives a place up only once every worker has long run without it.
                case.quiesce();
                let change = case.world.change(c);
                case.apply(change);
            }
            62 => case.listed(),
            _ => case.flushed(c),
        }
    }
    case.finish()
}

struct Case<'a> {
    /// Whether the reference director is asked.
    exact: bool,
    capacity: u32,
    /// Frames that come at once, at most.
    most: usize,
    /// Whether first fragments are lost.
    lossy: bool,
    bench: Bench<'a>,
    /// One for each worker.
    directors: Vec<Director>,
    world: World,
    places: Places,
    tally: &'a mut Tally,
    frames: usize,
    steps: usize,
    /// As they were after the last turn.
    counters: Counters,
    /// A frame that was sent of late.
    last_sent: Vec<u8>,
}

/// Which worker a device would give a frame to: all of a flow's to the same one, and all fragments from there to there; those of the
/// answers to any.
fn worker_of(c: &mut Choices<'_>, workers: usize, frame: &[u8]) -> usize {
    if workers == 1 || c.one_in(8) {
        return c.below(workers);
    }
    let v4 = frame.get(12) == Some(&8);
    let is_fragment = if v4 { frame.get(20..22).is_some_and(|word| word[0] & 0x3f | word[1] != 0) } else { frame.get(20) == Some(&44) };
    let ports = if is_fragment { 0 } else { 4 };
    let fields = if v4 { 26..34 + ports } else { 22..54 + ports };
    frame.get(fields).map_or(0, |bytes| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % workers)
}

impl Case<'_> {
    fn workers(&self) -> usize {
        self.directors.len()
    }

    fn apply(&mut self, batch: Batch) {
        for server in self.world.relieved.drain(..) {
            self.directors[0].relieve(server);
        }
        for worker in 0..self.workers() {
            self.directors[worker].marks.clone_from(&self.world.marks);
            self.directors[worker].apply(&batch);
            self.bench.tell(worker, &batch);
            self.turn(worker, &Arrivals::default(), None);
            self.bench.hear(worker);
            self.bench.settle(worker);
        }
        drop(batch);
        self.counts_agree();
    }

    /// Frames of clients, real servers and routers that come by a port, in the order in which they come.
    fn frames(&mut self, c: &mut Choices<'_>, port: usize) -> Frames {
        let mut frames = Vec::new();
        let count = 1 + c.below(self.most);
        if self.most > BURST && c.one_in(2) {
            // Several bursts one like the other, as a director has most of the time: few packets begin or end something.
            let kind = c.pick(&[(true, 6), (true, 6), (false, 6), (true, 17), (false, 17)]);
            let odd = c.pick(&[30, 1000, 10_000]);
            for _ in 0..20 * self.most {
                let frame = frames::frame(c, port, &mut self.places, &self.directors);
                let plain = frames::is_plain(&frame, kind, MACS[port]) && (frames::goes_on(&frame, kind) || c.one_in(4));
                if frames.len() < self.most && (plain || c.one_in(20 * odd)) {
                    frames.push(frame);
                }
            }
            for again in 0..frames.len() * 3 {
                if frames.len() < self.most {
                    frames.push(frames[again].clone());
                }
            }
            return frames;
        }
        while frames.len() < count {
            if self.lossy && c.one_in(4) {
                let frame = frames::long_datagram(c, port, &self.places);
                frames.extend(pieces::cut(c, &frame, true));
                continue;
            }
            let frame = frames::frame(c, port, &mut self.places, &self.directors);
            if c.one_in(8) {
                frames.extend(pieces::cut(c, &frame, self.lossy));
                continue;
            }
            if c.one_in(24) {
                frames.extend(pieces::too_big(c, &self.last_sent, MACS[port]));
            }
            // The same again, as clients do that wait for an answer.
            let copies = if self.most > 1 && c.one_in(16) { 1 + c.below(3) } else { 1 };
            frames.extend(std::iter::repeat_n(frame, copies));
        }
        frames
    }

    fn frames_come(&mut self, c: &mut Choices<'_>) {
        let port = c.below(MACS.len());
        self.places.services = self.world.services();
        let frames = self.frames(c, port);
        let mut by_worker: Vec<Frames> = vec![Vec::new(); self.workers()];
        for frame in frames {
            let worker = worker_of(c, self.workers(), &frame);
            // A frame that has the length of a buffer has no room for tags, which stray ones have without any VLAN.
            let as_it_is = self.most > BURST && self.world.network.vlans.is_empty() && frame.len() <= frames::LONGEST;
            by_worker[worker].push(if as_it_is { frame } else { pieces::tag(c, port, &self.world.network.vlans, frame) });
        }
        // Now and then time has gone on since the last turn.
        let passed = if c.one_in(8) { c.pick(&[1, 3, 50]) } else { 0 };
        if passed > 0 && self.workers() > 1 {
            self.pass(passed);
        } else {
            self.clock(passed);
        }
        // One at a time, as many as a burst holds, or more where a worker takes several bursts in a turn.
        let several = self.most > BURST && self.workers() == 1 && self.world.network.vlans.is_empty() && passed == 0;
        let at_once = if self.most == 1 { 1 } else { BURST * if several { 4 } else { 1 } };
        for (worker, frames) in by_worker.into_iter().enumerate() {
            for frames in frames.chunks(at_once) {
                let injected = if worker == 0 { self.injected(c) } else { Vec::new() };
                // Buffers come back between bursts.
                let starve = (c.one_in(50) && frames.len() <= BURST).then(|| c.below(3));
                self.turn(worker, &Arrivals { port, frames: frames.to_vec(), injected }, starve);
                if passed > 0 && self.workers() == 1 {
                    self.expire(passed);
                }
            }
        }
        // What was handed over may wait.
        if self.workers() > 1 {
            for _ in 0..c.below(4) {
                let worker = c.below(self.workers());
                self.turn(worker, &Arrivals::default(), None);
            }
        }
        // What differs stays different: no need to look after every frame.
        if self.most > 1 || self.steps.is_multiple_of(8) {
            self.counts_agree();
        }
    }

    /// Frames of the kernel's own.
    fn injected(&self, c: &mut Choices<'_>) -> Vec<Frames> {
        let mut injected = vec![Vec::new(); self.world.network.sides()];
        if c.one_in(20) {
            let waiting = 1 + c.below(if self.most > 8 { BURST } else { 3 });
            injected[c.below(self.world.network.sides())] = (0..waiting).map(|n| vec![n as u8; 60]).collect();
        }
        injected
    }

    /// The clock goes on; what ends by that ends with the next turn.
    fn clock(&mut self, ticks: u32) {
        self.bench.now = Tick(self.bench.now.0.wrapping_add(ticks));
        for director in &mut self.directors {
            director.pass(self.bench.now.0);
        }
    }

    /// Time goes on, and what ends by that ends.
    fn pass(&mut self, ticks: u32) {
        self.quiesce();
        self.clock(ticks);
        self.expire(ticks);
    }

    fn time_passes(&mut self, c: &mut Choices<'_>) {
        let seconds = |n: u32| n * Tick::PER_SECOND;
        let ticks = match c.below(16) {
            0..8 => c.below(300) as u32,
            8..12 => seconds(c.pick(&[1, 3, 10, 11, 30, 60])),
            12..15 => seconds(c.pick(&[61, 120, 121, 301, 901])),
            _ => c.pick(&[seconds(86_400), seconds(1_400), 1, 31, 32]),
        };
        self.pass(ticks);
        self.counts_agree();
    }

    /// What is over ends on both sides, all of one worker's before the next one's: where several have templates of a client that live on,
    /// the first to look at its own says which real server the client has at all of them.
    fn expire(&mut self, ticks: u32) {
        if !self.exact {
            self.quiesce();
        }
        for worker in 0..self.workers() {
            self.give_up_fragments(worker);
            self.bench.catch_up(worker, ticks);
            if !self.exact {
                continue;
            }
            let unsure = self.directors[worker].expire();
            if !unsure.is_empty() {
                let rows = self.bench.rows(worker);
                for key in unsure {
                    self.directors[worker].settle(&key, &rows);
                }
            }
        }
    }

    /// A filter that means some of what there is.
    fn filter(&mut self, c: &mut Choices<'_>, key: &Key) -> ConnectionFilter {
        let mut filter = ConnectionFilter::default();
        match c.below(8) {
            7 => filter.server_id = Some(ServerId(c.below(48) as u32)),
            0 => filter.client = Some(key.client.ip().into()),
            1 => filter.virtual_address = Some(key.virtual_.ip().into()),
            2 => filter.virtual_port = Some(key.virtual_.port()),
            3 => filter.protocol = Some(c.pick(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Ip])),
            4 => {
                filter.protocol = Some(Protocol::Ip);
                filter.virtual_address = Some(ServiceKey::marked(1, key.client.is_ipv4()).address);
            }
            5 => filter.server = self.bench.rows(0).first().map(|row| row.server.ip().into()),
            _ => {}
        }
        filter
    }

    fn flushed(&mut self, c: &mut Choices<'_>) {
        self.quiesce();
        let key = (!self.places.recent.is_empty()).then(|| self.places.connection(c, &self.directors));
        let filter = key.map(|key| self.filter(c, &key)).unwrap_or_default();
        self.flush(filter);
    }

    fn flush(&mut self, filter: ConnectionFilter) {
        for (worker, director) in self.directors.iter_mut().enumerate() {
            let (seen, expected) = (self.bench.flush(worker, filter), director.flush(&filter));
            assert!(!self.exact || seen == expected, "{seen} entries of worker {worker} ended, not {expected}, by {filter:?}");
        }
        self.listed();
        self.counts_agree();
    }

    /// Everything ends, and nothing is left.
    fn finish(mut self) -> usize {
        self.listed();
        self.flush(ConnectionFilter::default());
        for worker in 0..self.workers() {
            assert_eq!(self.bench.entries(worker), 0, "entries left");
        }
        // Fragments wait for two seconds.
        self.clock(3 * Tick::PER_SECOND);
        self.quiesce();
        self.all_counted(&self.bench.counters());
        assert_eq!(self.bench.rig.pool.in_use(), 0, "buffers leaked");
        self.frames
    }
}
