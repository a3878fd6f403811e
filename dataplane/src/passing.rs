//! Answers that pass the director although direct routing and tunnels have no need of it: IPv6 packets from a VIP, of a real server whose
//! way to clients leads through us.
//!
//! IPVS, on a router, lets them through and follows the connection in both directions from then on. Those of IPv4 are martians to a
//! Linux router, which holds the VIP itself (RFC 1812 section 5.3.8), and stay [`Verdict::OwnSource`].

use dpdk::mbuf::Mbuf;

use crate::connection::Key;
use crate::handover::HandOver;
use crate::lanes::{Fate, Lanes, each};
use crate::masquerade::{Ends, count_reply};
use crate::parse::Packet;
use crate::service::Method;
use crate::track::Tracker;

impl Tracker {
    /// Stage: packets from our own addresses, which belong to no service, go to the client if a connection's real server sent them; those of other
    /// workers' connections are handed over, so many a second. Cost without any: one comparison a burst.
    #[inline]
    pub fn pass_answers(&mut self, lanes: &mut Lanes, ends: Ends<'_>, handover: &mut Option<HandOver>) {
        if lanes.own_sources != 0 {
            self.pass(lanes, ends, handover);
        }
    }

    #[inline(never)]
    fn pass(&mut self, lanes: &mut Lanes, ends: Ends<'_>, handover: &mut Option<HandOver>) {
        for i in each(std::mem::take(&mut lanes.own_sources)) {
            let packet = lanes.packets[i];
            if packet.v4 || ends.rules.is_own(packet.key.virtual_) {
                continue;
            }
            if let Some(fate) = self.pass_answer(&mut lanes.frames[i], &packet, ends) {
                lanes.fates[i] = fate;
            } else if let Some(fate) = handover.as_mut().and_then(|handover| handover.error_elsewhere(&mut lanes.journeys[i], None)) {
                lanes.fates[i] = fate;
            }
        }
    }

    /// What an answer does; `None` when no connection here awaits it.
    fn pass_answer(&mut self, frame: &mut Mbuf, packet: &Packet, Ends { rules, macs, now, .. }: Ends<'_>) -> Option<Fate> {
        let Key { client, virtual_, virtual_port, client_port, protocol } = packet.key;
        let request = Key { client: virtual_, virtual_: client, virtual_port: client_port, client_port: virtual_port, protocol };
        let id = self.connections.find(self.connections.hash(&request), &request)?;
        let entry = *self.connections.entry(id);
        if entry.method() == Method::Masquerading {
            return None;
        }
        Some(match self.to_client(id, frame.data_mut(), packet, rules, macs) {
            Ok(fate) => {
                count_reply(entry.server(), entry.service(), packet, rules);
                self.packet_out(id, packet, rules, now);
                self.connections.note_answer(id);
                fate
            }
            Err(fate) => fate,
        })
    }
}
