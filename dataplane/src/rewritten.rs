//! The short way of tunnels and masquerading: plain packets of established connections, prepared ways, no look at anything else.
//!
//! As in [`established`](crate::established), what is done to a frame is what the general stages would do to it, and whatever else it
//! may be (longer than the link takes, without a checksum, from a client that has moved) is left to them, untouched.

use dpdk::mbuf::Mbuf;

use crate::connection::{EntryId, Key, Way, entry};
use crate::established::{Found, bit};
use crate::lanes::{Lanes, Plain, each};
use crate::masquerade::address_frame;
use crate::plain::{Family, Tcp, Transport, Udp, V4, V6};
use crate::rules::Rules;
use crate::service::{Method, Protocol};
use crate::tick::Tick;
use crate::track::Tracker;
use crate::translate::End;
use crate::translate::plain::{Translated, plain, port_words};
use crate::tunnel::Tunnels;
use crate::ways::Detour;

/// What the stage works with beside the frames.
#[derive(Debug)]
pub struct Around<'a> {
    /// The port that the burst came by.
    pub port: u16,
    /// The rules.
    pub rules: &'a Rules,
    /// The ports' own MACs, by port.
    pub macs: &'a [[u8; 6]],
    /// Ids and lengths of tunnelled packets.
    pub tunnels: &'a mut Tunnels,
    /// The present.
    pub now: Tick,
}

/// Lanes by what is to be done with their packets; direct routing has none of them.
struct Sorted {
    tunnelled: u64,
    masqueraded: u64,
    /// Those without an entry.
    answers: u64,
}

impl Tracker {
    /// Stage: sends on the packets of established connections that the stage before left for their method, and finds the entries of all
    /// that it leaves. Cost where that stage left nothing: one comparison a burst.
    #[inline]
    pub fn rewritten(&mut self, lanes: &mut Lanes, mut around: Around<'_>) {
        let left = lanes.plain.all() & !lanes.through;
        if left != 0 {
            self.rewrite(left, lanes, &mut around);
        }
    }

    #[inline(never)]
    fn rewrite(&mut self, left: u64, lanes: &mut Lanes, around: &mut Around<'_>) {
        let Plain { tcp_v4, udp_v4, tcp_v6, udp_v6 } = lanes.plain;
        let rest = lanes.all() & !lanes.through;
        let mut others = 0_u64;
        let mut found = Found { left: 0, held: lanes.held, ports: 0 };
        for (kind, rewrite) in [
            (tcp_v4, Self::rewrite_kind::<V4, Tcp> as fn(&mut Self, (u64, bool), &mut Lanes, &mut Found, &mut Around<'_>) -> u64),
            (udp_v4, Self::rewrite_kind::<V4, Udp>),
            (tcp_v6, Self::rewrite_kind::<V6, Tcp>),
            (udp_v6, Self::rewrite_kind::<V6, Udp>),
        ] {
            let which = kind & left;
            if which != 0 {
                // Where others may take ids before these, in whatever order, these leave it to who sees all of them.
                others |= rewrite(self, (which, which == rest), lanes, &mut found, around);
            }
        }
        lanes.through |= left & !found.left;
        self.rewrites = (others & !found.left).count_ones() * 2 > lanes.plain.all().count_ones();
        lanes.through_ports |= found.ports;
    }

    /// Sends packets of one kind on: requests first, then answers, as the general stages do. Tunnelled ones get their ids here, or
    /// nowhere in this stage. Gives the lanes that are not by direct routing.
    fn rewrite_kind<F: Translated, T: Transport>(
        &mut self,
        (which, gives_ids): (u64, bool),
        lanes: &mut Lanes,
        found: &mut Found,
        around: &mut Around<'_>,
    ) -> u64 {
        let Sorted { tunnelled, masqueraded, answers } = self.sort::<F, T>(which, lanes, around.rules);
        let Lanes { frames, hashes, guesses, entries, fates, .. } = &mut *lanes;
        let frames = frames.iter_mut().into_slice();
        let others = tunnelled | masqueraded | answers;
        for i in each(which & !others) {
            let id = entries[i].unwrap_or(EntryId::NONE);
            // Unless it left all to this stage, the stage before has tried what is where it looked.
            let sent = if self.rewrites || id != guesses[i] {
                self.send_found::<F, T>(frames[i].data_mut(), id, found.held, around)
            } else {
                None
            };
            found.take(i, id, sent, &mut fates[i]);
        }
        for i in each(tunnelled) {
            let id = entries[i].unwrap_or(EntryId::NONE);
            let gives_ids = gives_ids && found.left | answers == 0;
            let sent = self.tunnel_on::<F, T>(&mut frames[i], id, found.held, gives_ids, around);
            found.take(i, id, sent, &mut fates[i]);
        }
        for i in each(masqueraded) {
            let id = entries[i].unwrap_or(EntryId::NONE);
            let sent = self.masquerade_on::<F, T>(frames[i].data_mut(), id, found.held, around);
            found.take(i, id, sent, &mut fates[i]);
        }
        if !self.connections.has_replies() {
            found.left |= answers;
            return others;
        }
        for i in each(answers) {
            self.connections.prefetch_answered(hashes[i]);
        }
        for i in each(answers) {
            let id = self.connections.answered(hashes[i]).unwrap_or(EntryId::NONE);
            let sent = self.answer_on::<F, T>(frames[i].data_mut(), id, found.held, around);
            found.take(i, id, sent, &mut fates[i]);
        }
        others
    }

    /// Finds the entries of packets of one kind, and asks for what comes next.
    #[inline(always)]
    fn sort<F: Family, T: Transport>(&self, which: u64, lanes: &mut Lanes, rules: &Rules) -> Sorted {
        let Lanes { frames, hashes, guesses, entries, .. } = &mut *lanes;
        let frames = frames.as_slice();
        let mut sorted = Sorted { tunnelled: 0, masqueraded: 0, answers: 0 };
        for i in each(which) {
            entries[i] = F::head(frames[i].data()).and_then(|head| {
                let word = F::word(head, self.connections.hasher());
                let is_there = self.connections.is_at(guesses[i], word, F::ports(head), T::PROTOCOL as u8, F::V4);
                if is_there { Some(guesses[i]) } else { self.look_closer::<F, T>(head, hashes[i]) }
            });
            let Some((id, entry)) = entries[i].and_then(|id| Some((id, self.connections.get(id)?))) else {
                self.connections.prefetch_reply(hashes[i]);
                sorted.answers |= 1 << i;
                continue;
            };
            rules.ways.prefetch_detour(entry.server());
            if entry.is_like(const { entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::Tunnel, F::V4) }) {
                frames[i].prefetch_headroom();
                sorted.tunnelled |= 1 << i;
            } else if entry.is_like(const { entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::Masquerading, F::V4) }) {
                self.connections.prefetch_way(id);
                sorted.masqueraded |= 1 << i;
            }
        }
        sorted
    }

    /// The entry of a packet, wherever it is.
    #[inline(never)]
    fn look_closer<F: Family, T: Transport>(&self, head: &F::Head, hash: u64) -> Option<EntryId> {
        self.connections.find_words(hash, F::addresses(head), F::ports(head), T::PROTOCOL as u8)
    }

    /// By direct routing, what was not where the stage before looked. Gives the port; `None`, and nothing is changed, if the next stages
    /// are to look at the packet. So do the others.
    #[inline(never)]
    fn send_found<F: Family, T: Transport>(&mut self, frame: &mut [u8], id: EntryId, held: u64, around: &Around<'_>) -> Option<u16> {
        self.send::<F, T>(frame, id, held, around.rules, around.now)
    }

    /// Into a tunnel.
    #[inline(always)]
    fn tunnel_on<F: Family, T: Transport>(
        &mut self,
        frame: &mut Mbuf,
        id: EntryId,
        held: u64,
        gives_ids: bool,
        Around { rules, tunnels, now, .. }: &mut Around<'_>,
    ) -> Option<u16> {
        let head = F::head(frame.data())?;
        let (continues, length) = (T::continues(F::transport(head)), F::length(head));
        let entry = self.connections.entry_mut(id)?;
        let Detour::Tunnel(share, way) = rules.ways.detour(entry.server())? else { return None };
        let terms = rules.ways.terms(entry.service())?;
        let expires = entry.later(*now, T::timeout(terms))?;
        if !continues || length > way.room || held & bit(id) != 0 {
            return None;
        }
        // Whoever lets packets be cut that ask not to be, or knows of a shorter way, has each looked at as a whole.
        if !rules.settings.pmtu_disc || tunnels.paths.towards(way.destination, way.mtu, *now) != way.mtu {
            return None;
        }
        way.wrap::<F>(frame, gives_ids.then_some(&mut **tunnels))?;
        entry.renew(expires);
        share.traffic.count_in(length);
        terms.tally().count(length);
        Some(way.port)
    }

    /// To a masquerading real server.
    #[inline(always)]
    fn masquerade_on<F: Translated, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: EntryId,
        held: u64,
        Around { port, rules, now, .. }: &Around<'_>,
    ) -> Option<u16> {
        let from = Way { port: *port, mac: *frame.get(6..12)?.first_chunk()? };
        let head = F::head_mut(frame)?;
        let (continues, length) = (T::continues(F::transport(head)), F::length(head));
        if self.connections.way(id) != Some(from) {
            return None;
        }
        let entry = self.connections.entry_mut(id)?;
        let Detour::Masquerade(way) = rules.ways.detour(entry.server())? else { return None };
        let terms = rules.ways.terms(entry.service())?;
        let expires = entry.later(*now, T::timeout(terms))?;
        if !continues || length > way.mtu || F::hops(head) <= 1 || way.v4 != F::V4 || held & bit(id) != 0 {
            return None;
        }
        let [_, vport] = port_words(F::ports(head));
        plain::<F, T>(head, End::Destination, way.address, way.port_for(vport))?;
        *frame.first_chunk_mut()? = way.addresses;
        entry.renew(expires);
        way.share.traffic.count_in(length);
        terms.tally().count(length);
        Some(way.port)
    }

    /// To a client, what a masquerading real server answers on connection `id`, of which only the hash is known to be right.
    #[inline(always)]
    fn answer_on<F: Translated, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: EntryId,
        held: u64,
        Around { rules, macs, now, .. }: &Around<'_>,
    ) -> Option<u16> {
        let head = F::head_mut(frame)?;
        let (continues, length) = (T::continues(F::transport(head)), F::length(head));
        let [client, vip] = F::ends(&self.connections, id)?;
        let learned = self.connections.way(id);
        let entry = self.connections.entry_mut(id)?;
        // That somebody answers is news to the template of a UDP connection.
        let tells = T::PROTOCOL as u8 == Protocol::Udp as u8 && entry.flags & entry::flags::CONTROLLED != 0;
        if !entry.is_like(entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::Masquerading, F::V4)) || tells {
            return None;
        }
        let Detour::Masquerade(way) = rules.ways.detour(entry.server())? else { return None };
        let [cport, vport] = port_words(entry.ports());
        let ends = (F::address(head, End::Source), F::address(head, End::Destination), port_words(F::ports(head)));
        if ends != (way.address, client, [way.port_for(vport), cport]) {
            return None;
        }
        let client = Key::of(F::addresses(head), F::ports(head), T::PROTOCOL as u8).virtual_;
        let (terms, answers) = (rules.ways.terms(entry.service())?, rules.ways.answers(entry.service())?);
        let expires = entry.later(*now, T::timeout(terms))?;
        if !continues || F::hops(head) <= 1 || held & bit(id) != 0 || rules.is_own(client) {
            return None;
        }
        let hop = rules.routes.way_to(client, learned)?;
        let source = macs.get(usize::from(hop.port))?;
        if length > hop.mtu {
            return None;
        }
        plain::<F, T>(head, End::Source, vip, vport)?;
        address_frame(frame, hop.mac, *source);
        entry.prolong(expires);
        for traffic in [&way.share.traffic, answers] {
            traffic.count_out(length);
        }
        Some(hop.port)
    }
}
