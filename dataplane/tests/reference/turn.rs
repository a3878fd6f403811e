//! A worker's turn: the kernel's frames, a burst of every port or several, what other workers handed over, and what waited too long.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::service::{Drain, Method};

use super::connections::{Beginning, Key};
use super::forward::{self, Cause};
use super::fragments::Datagram;
use super::handover::Journey;
use super::wire::{self, Kind, Packet};
use super::{Director, reset, vlans};

/// Frames of a burst.
pub const BURST: usize = 64;

/// Frames in order.
pub type Frames = Vec<Vec<u8>>;

/// What must become of a frame, as far as is known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Undecided,
    /// Bound for this real server, by this method.
    Server(u32, Method),
    /// An ICMP error about a service that may begin a connection.
    Unrelated,
    Send(u16, &'static str),
    Kernel,
    HandOver(usize),
    Hold(Datagram),
    Drop(&'static str),
}

pub(super) struct Lane {
    pub(super) frame: Vec<u8>,
    pub(super) packet: Option<Packet>,
    pub(super) fate: Fate,
    pub(super) journey: Journey,
    /// The connection that it answers.
    pub(super) answers: Option<Key>,
}

/// What the ports and buffers can take during a turn.
#[derive(Clone, Debug)]
pub struct Room {
    /// Buffers for frames of our own.
    pub buffers: usize,
    /// Frames that each port still takes.
    pub ports: Vec<usize>,
    /// Frames that the way to the kernel still takes, by port and VLAN.
    pub kernel: Vec<usize>,
}

/// What comes in a turn.
#[derive(Clone, Default, Debug)]
pub struct Arrivals {
    /// The port that frames come by, and the frames.
    pub port: usize,
    pub frames: Frames,
    /// The kernel's frames, by port and VLAN.
    pub injected: Vec<Frames>,
}

/// What must have come of a turn.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How many frames got each verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Frames sent, by port, in order.
    pub sent: Vec<Frames>,
    /// Frames handed to the kernel, by port and VLAN, in order.
    pub kernel: Vec<Frames>,
    pub icmp_errors: u64,
    pub resets: u64,
    pub fragments: u64,
    pub injected: u64,
    pub handed_over: u64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verdicts, icmp_errors, resets, fragments, injected, handed_over, .. } = self;
        write!(
            f,
            "{verdicts:?}, {icmp_errors} errors, {resets} resets, {fragments} fragments, {injected} injected, {handed_over} handed over"
        )
    }
}

/// The lane that an error is about, what it says, and whose it is if not the one's that the packet was sent to.
type Wanted = (usize, Cause, Option<IpAddr>);

/// A turn on its way: what has come of it so far, and the room that is left.
pub(super) struct Turn {
    outcome: Outcome,
    pub(super) room: Room,
    /// What clients are told about their tunnels, and the port that it leaves by.
    pub(super) ready: Vec<(u16, Vec<u8>)>,
}

impl Turn {
    fn count(&mut self, verdict: &'static str) {
        *self.outcome.verdicts.entry(verdict).or_default() += 1;
    }

    /// Adds the further pieces of a packet to those of the burst, which has room for so many, if there are buffers.
    fn take_pieces(&mut self, later: &mut Vec<(u16, Vec<u8>)>, out: u16, pieces: Vec<Vec<u8>>) -> Fate {
        if later.len() + pieces.len() > BURST || pieces.len() > self.room.buffers {
            return Fate::Drop("no_buffer");
        }
        self.room.buffers -= pieces.len();
        later.extend(pieces.into_iter().map(|piece| (out, piece)));
        Fate::Send(out, "forwarded")
    }
}

impl Director {
    /// A turn; frames of the kernel's own leave before a port's burst, and those of VLANs after all.
    pub fn turn(&mut self, arrivals: Arrivals, room: Room) -> Outcome {
        let outcome = Outcome { sent: vec![Vec::new(); self.ports], kernel: vec![Vec::new(); self.macs.len()], ..Outcome::default() };
        let mut turn = Turn { outcome, room, ready: Vec::new() };
        let mut injected = arrivals.injected;
        injected.resize(self.macs.len(), Vec::new());
        let mut frames = arrivals.frames;
        let of_vlans = injected.split_off(self.ports);
        for (port, injected) in injected.into_iter().enumerate() {
            self.inject(port, injected, &mut turn);
            if port == arrivals.port {
                for burst in std::mem::take(&mut frames).chunks(BURST) {
                    self.received(port, burst.to_vec(), &mut turn);
                }
            }
        }
        if self.workers > 1 {
            let taken = self.take_over();
            for side in 0..self.macs.len() {
                let of_side: Vec<_> = taken.iter().filter(|(_, journey)| journey.port == side).cloned().collect();
                self.process(side, of_side, &mut turn);
            }
            if !taken.is_empty() {
                self.let_go(&mut turn);
            }
        }
        for (n, frames) in of_vlans.into_iter().enumerate() {
            self.inject(self.ports + n, frames, &mut turn);
        }
        for _ in 0..self.fragments.expired(self.now) {
            turn.count("fragment_lost");
        }
        self.defend();
        turn.outcome
    }

    fn inject(&self, side: usize, frames: Frames, turn: &mut Turn) {
        for frame in frames {
            let sent = self.send(side as u16, frame, turn);
            turn.outcome.injected += u64::from(sent);
        }
    }

    /// A burst: first the port's own frames, then those of its VLANs, one VLAN after the other.
    fn received(&mut self, port: usize, frames: Frames, turn: &mut Turn) {
        let all: Vec<_> = frames.into_iter().map(|frame| vlans::untag(&self.vlans, self.ports, port, frame)).collect();
        let mut sides = vec![port];
        for (side, _) in &all {
            if !sides.contains(side) {
                sides.push(*side);
            }
        }
        for side in sides {
            let of_side = all.iter().filter(|(of, _)| *of == side).map(|(_, frame)| (frame.clone(), Journey::begin(side, self.index)));
            let of_side = of_side.collect();
            self.process(side, of_side, turn);
        }
        self.let_go(turn);
    }

    /// Fragments whose first one has come, those that came alike together.
    fn let_go(&mut self, turn: &mut Turn) {
        while let Some(first) = self.fragments.ready.front() {
            let arrival = (first.journey.port, first.journey.under_way);
            let same = self.fragments.ready.iter().take(64).take_while(|w| (w.journey.port, w.journey.under_way) == arrival).count();
            let frames = self.fragments.ready.drain(..same).map(|waiting| (waiting.frame, waiting.journey)).collect();
            self.process(arrival.0, frames, turn);
        }
    }

    /// Frames through all stages. Those of known connections, both directions, come before first packets, and what is no connection's before
    /// both; everything else is in the order of the burst.
    fn process(&mut self, side: usize, frames: Vec<(Vec<u8>, Journey)>, turn: &mut Turn) {
        if frames.is_empty() {
            return;
        }
        let lane = |(frame, journey)| Lane { frame, packet: None, fate: Fate::Undecided, journey, answers: None };
        let mut lanes: Vec<Lane> = frames.into_iter().map(lane).collect();
        self.read(&mut lanes, side, turn);
        self.replaced.clear();
        let mut errors = Vec::new();
        let is_masquerading = self.is_masquerading();
        for (at, lane) in lanes.iter_mut().enumerate() {
            if let Some(packet) = lane.packet.as_ref().filter(|packet| lane.fate == Fate::Undecided && packet.is_flow()) {
                lane.fate = self.known(packet).unwrap_or(Fate::Undecided);
            }
            if is_masquerading && let Some(own) = self.answer_or_hand_over(lane) {
                errors.push((at, Cause::PortUnreachable, Some(own)));
            }
        }
        self.pass_on(&mut lanes);
        let firsts = self.firsts();
        for (at, lane) in lanes.iter_mut().enumerate() {
            if let Some(packet) = lane.packet.as_ref().filter(|_| lane.fate == Fate::Undecided) {
                lane.fate = match self.known(packet) {
                    Some(fate) => fate,
                    None => match self.drained(packet) {
                        Some(Drain::Reset) => {
                            let cause = if packet.protocol == 6 { Cause::Reset } else { Cause::PortUnreachable };
                            errors.push((at, cause, None));
                            lane.fate = Fate::Drop("no_real_server");
                            continue;
                        }
                        drain => self.first(packet, Beginning { apart: firsts.contains(&at), anew: drain.is_some() }),
                    },
                };
                if lane.fate == Fate::Drop("no_real_server") {
                    errors.extend(self.refusal(packet).map(|cause| (at, cause, None)));
                }
            }
        }
        for lane in &mut lanes {
            if let Some(packet) = lane.packet.as_ref().filter(|_| lane.fate == Fate::Unrelated) {
                lane.fate = self.begin_with_error(&lane.frame, packet);
            }
        }
        for lane in &mut lanes {
            self.pass_answer(lane);
        }
        self.learn(&mut lanes);
        let later = self.forward_all(side, &mut lanes, &mut errors, turn);
        self.dispatch(side, lanes, errors, later, turn);
    }

    /// What each frame is; fragments, notices and what is no flow are decided about.
    fn read(&mut self, lanes: &mut [Lane], side: usize, turn: &mut Turn) {
        self.no_firsts();
        for (at, lane) in lanes.iter_mut().enumerate() {
            match wire::read(&lane.frame, self.macs[side]) {
                Ok(packet) => lane.packet = Some(packet),
                Err(verdict) => lane.fate = Fate::Drop(verdict),
            }
            if let Some(fate) = self.place(at, lane) {
                lane.fate = fate;
            }
        }
        for lane in lanes.iter_mut() {
            let Lane { frame, packet: Some(packet), fate: fate @ Fate::Undecided, journey, .. } = lane else { continue };
            if let Some(decided) = self.about_tunnel(frame, packet, side, journey, turn) {
                *fate = decided;
            }
        }
        for lane in lanes.iter_mut() {
            if let Some(packet) = lane.packet.as_ref().filter(|packet| lane.fate == Fate::Undecided && !packet.is_flow()) {
                lane.fate = self.other(&mut lane.frame, packet, side, &mut lane.journey);
            }
        }
    }

    /// A packet without an entry of its own may be a real server's answer, here or at another worker.
    /// Gives the address of ours from which a real server is to be told that nobody waits for it.
    fn answer_or_hand_over(&mut self, lane: &mut Lane) -> Option<IpAddr> {
        let Lane { frame, packet: Some(packet), fate: fate @ Fate::Undecided, journey, answers } = lane else { return None };
        if self.is_own(packet.destination.ip()) {
            return None;
        }
        if let Some((key, decided)) = self.answer(frame, packet) {
            (*fate, *answers) = (decided, Some(key));
            return None;
        }
        let owner = self.owner(packet.protocol, packet.source, packet.destination);
        if let Some(elsewhere) = owner.and_then(|owner| self.elsewhere(journey, Some(owner))) {
            *fate = elsewhere;
            return None;
        }
        if !self.is_of_no_connection(packet) {
            return None;
        }
        *fate = Fate::Drop("no_connection");
        self.own_address_towards(packet.source.ip())
    }

    /// A packet from an address of ours may be an answer that passes us, here or at another worker.
    fn pass_answer(&mut self, lane: &mut Lane) {
        let Lane { frame, packet: Some(packet), fate: fate @ Fate::Drop("own_source"), journey, .. } = lane else { return };
        if !packet.is_flow() || packet.is_v4() || self.is_own(packet.destination.ip()) {
            return;
        }
        if let Some(decided) = self.passing_answer(frame, packet).or_else(|| self.error_elsewhere(journey, None)) {
            *fate = decided;
        }
    }

    /// First fragments of services without an entry here are for other workers, unless one of the same connection comes before.
    fn pass_on(&mut self, lanes: &mut [Lane]) {
        for at in self.firsts() {
            let Some(packet) = lanes[at].packet.clone().filter(|_| lanes[at].fate == Fate::Undecided) else { continue };
            let ends = (packet.source, packet.destination);
            let same = |lane: &Lane| {
                lane.fate == Fate::Undecided
                    && lane.packet.as_ref().is_some_and(|p| (p.protocol, p.source, p.destination) == (packet.protocol, ends.0, ends.1))
            };
            if self.service_of(&packet).is_none() || lanes[..at].iter().any(same) {
                continue;
            }
            if let Some(fate) = self.fragment_elsewhere(&mut lanes[at].journey, packet.protocol, ends) {
                lanes[at].fate = fate;
            }
        }
    }

    /// By direct routing, then by tunnels, then by masquerading; what is too long for its link is cut at last. Gives the further
    /// pieces of what was cut, with the port that each leaves by.
    fn forward_all(&mut self, side: usize, lanes: &mut [Lane], errors: &mut Vec<Wanted>, turn: &mut Turn) -> Vec<(u16, Vec<u8>)> {
        let mut later = Vec::new();
        // Answers to masqueraded requests have their way already.
        let mut routed: Vec<bool> = lanes.iter().map(|lane| matches!(lane.fate, Fate::Send(_, "forwarded"))).collect();
        for method in forward::ORDER {
            for (at, lane) in lanes.iter_mut().enumerate() {
                let Lane { frame, packet: Some(packet), fate, .. } = lane else { continue };
                let Fate::Server(server, by) = *fate else { continue };
                if by != method {
                    continue;
                }
                routed[at] = method == Method::Masquerading;
                let mut pieces = Vec::new();
                *fate = match self.forward((server, by), frame, packet, side, &mut pieces) {
                    Ok(out) => turn.take_pieces(&mut later, out, pieces),
                    Err((verdict, cause)) => {
                        errors.extend(cause.filter(|_| packet.is_flow()).map(|cause| (at, cause, None)));
                        Fate::Drop(verdict)
                    }
                };
            }
        }
        for (lane, _) in lanes.iter_mut().zip(routed).filter(|(_, routed)| *routed) {
            let Lane { frame, packet: Some(packet), fate, .. } = lane else { continue };
            let Fate::Send(out, _) = *fate else { continue };
            *fate = match self.cut(frame, packet, out) {
                Ok(mut all) => {
                    *frame = all.remove(0);
                    turn.take_pieces(&mut later, out, all)
                }
                Err(verdict) => Fate::Drop(verdict),
            };
        }
        later
    }

    /// Sends a frame if its port takes it; frees it otherwise.
    fn send(&self, side: u16, frame: Vec<u8>, turn: &mut Turn) -> bool {
        let (port, frame) = vlans::tagged(&self.vlans, self.ports, side.into(), frame);
        let fits = turn.room.ports[port] > 0;
        if fits {
            turn.room.ports[port] -= 1;
            turn.outcome.sent[port].push(frame);
        } else {
            turn.room.buffers += 1;
        }
        fits
    }

    /// Everything leaves: ICMP errors, the burst in its order, later pieces.
    fn dispatch(&mut self, side: usize, lanes: Vec<Lane>, errors: Vec<Wanted>, later: Vec<(u16, Vec<u8>)>, turn: &mut Turn) {
        for (out, answer) in std::mem::take(&mut turn.ready) {
            turn.outcome.icmp_errors += u64::from(self.send(out, answer, turn));
        }
        let mut answers = Vec::new();
        for (lane, cause, own) in errors {
            if self.icmp.take() && turn.room.buffers > 0 {
                let Lane { frame, packet: Some(packet), .. } = &lanes[lane] else { continue };
                turn.room.buffers -= 1;
                let resets = cause == Cause::Reset;
                let our_mac = self.macs[side];
                answers.push((
                    resets,
                    if resets { reset::write(frame, packet, our_mac) } else { forward::icmp_error(frame, packet, our_mac, cause, own) },
                ));
            }
        }
        for (resets, answer) in answers {
            let sent = u64::from(self.send(side as u16, answer, turn));
            *if resets { &mut turn.outcome.resets } else { &mut turn.outcome.icmp_errors } += sent;
        }
        for lane in lanes {
            let verdict = match lane.fate {
                Fate::Send(out, _) if usize::from(out) >= self.macs.len() => "no_next_hop",
                Fate::Send(out, verdict) => {
                    // What is not sent gives its buffer back here, not below.
                    let sent = self.send(out, lane.frame, turn);
                    turn.count(if sent { verdict } else { "tx_full" });
                    continue;
                }
                Fate::Kernel => {
                    let neighbour = lane.packet.as_ref().is_some_and(|p| matches!(p.kind, Kind::Arp | Kind::Discovery));
                    let bucket = if neighbour { &mut self.kernel_neighbours } else { &mut self.kernel };
                    if !bucket.take() {
                        "exception_rate"
                    } else if turn.room.kernel[side] == 0 {
                        "exception_full"
                    } else {
                        turn.room.kernel[side] -= 1;
                        turn.outcome.kernel[side].push(lane.frame);
                        turn.count("exception");
                        continue;
                    }
                }
                Fate::HandOver(to) => {
                    let common = &mut *self.common.borrow_mut();
                    let house = common.house.as_mut().expect("several workers");
                    house.rings[self.index][to].push_back((lane.frame, lane.journey));
                    turn.outcome.handed_over += 1;
                    continue;
                }
                Fate::Hold(datagram) => {
                    if self.fragments.hold(lane.frame, lane.journey, datagram, self.now) {
                        continue;
                    }
                    "fragment_lost"
                }
                Fate::Drop(verdict) => verdict,
                Fate::Undecided | Fate::Unrelated | Fate::Server(..) => panic!("a frame without a verdict"),
            };
            turn.count(verdict);
            turn.room.buffers += 1;
        }
        for (out, piece) in later {
            let sent = self.send(out, piece, turn);
            turn.outcome.fragments += u64::from(sent);
        }
    }
}
