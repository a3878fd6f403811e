//! The short way: packets of established connections to real servers by direct routing, finished in one pass.
//!
//! What this stage does to a frame is what lookup, track and forward would do to it. Whatever else a frame may be (a first
//! packet, a state that changes, a removed real server, a tunnel, a packet too long) it leaves to them, untouched.

use crate::forward::decrement;
use crate::lanes::{Fate, Lanes, each};
use crate::rules::Rules;
use crate::service::Protocol;
use crate::settings::Ttl;
use crate::tcp::{self, State};
use crate::tick::Tick;
use crate::track::{Tracker, count_packet};
use crate::verdict::Verdict;

/// Flags of which an ordinary segment has the last alone.
const TELLING: u8 = tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK;

impl Tracker {
    /// Stage: asks for the entry that each flow most likely has, so that cache misses overlap.
    #[inline]
    pub fn seek(&self, lanes: &mut Lanes) {
        for i in each(lanes.flows) {
            lanes.guesses[i] = self.connections.prefetch_entry(lanes.hashes[i]);
        }
    }

    /// Stage: sends on what belongs to an established connection. Cost: four lines, those of the entry, the real server and the
    /// counters of both it and the service.
    #[inline]
    pub fn established(&mut self, lanes: &mut Lanes, rules: &Rules, now: Tick) {
        let lowers = rules.settings.ttl == Ttl::Decrement;
        let Lanes { frames, packets, flows, hashes, guesses, fates, .. } = lanes;
        let (mut through, mut through_ports) = (0_u64, 0_u64);
        // Connections with a packet that is left to the next stages, by the low bits of the entry: those behind it stay behind it.
        let mut held = 0_u64;
        for i in each(*flows) {
            let packet = &packets[i];
            let Some(id) = self.connections.find_from(guesses[i], hashes[i], &packet.key) else { continue };
            let bit = 1 << (id.0 & 63);
            let first = held & bit == 0;
            held |= bit;
            let entry = self.connections.entry_mut(id);
            let tcp = packet.tcp_flags & TELLING == tcp::ACK && entry.is_plain(Protocol::Tcp, State::Established);
            if !(tcp || entry.is_plain(Protocol::Udp, State::None)) {
                continue;
            }
            let (Some(way), Some(terms)) = (rules.ways.way(entry.server()), rules.ways.terms(entry.service())) else { continue };
            let Some(expires) = entry.later(now, if tcp { terms.tcp } else { terms.udp }) else { continue };
            if packet.length > way.mtu || !first {
                continue;
            }
            let frame = frames[i].data_mut();
            if lowers && !decrement(frame, packet.v4) {
                continue;
            }
            let Some(addresses) = frame.first_chunk_mut() else { continue };
            *addresses = way.addresses;
            entry.renew(expires);
            held ^= bit;
            count_packet(&way.share.traffic, packet);
            count_packet(&terms.traffic, packet);
            fates[i] = Fate::Send(way.port, Verdict::Forwarded);
            through |= 1 << i;
            through_ports |= 1 << (way.port & 63);
        }
        lanes.flows &= !through;
        (lanes.through, lanes.through_ports) = (through, through_ports);
    }
}
