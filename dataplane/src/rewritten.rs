//! The short way of tunnels and masquerading: plain packets of established connections, prepared ways, no look at anything else.
//!
//! As in [`established`](crate::established), what is done to a frame is what the general stages would do to it, and whatever else it
//! may be (longer than the link takes, without a checksum, from a client that has moved) is left to them, untouched.

use dpdk::mbuf::Mbuf;

use crate::connection::{Entry, EntryId, WayWord, entry};
use crate::established::{Around, Found, bit};
use crate::lanes::{Lanes, Plain, each, has};
use crate::masquerade::address_frame;
use crate::plain::{Family, Tcp, Transport, Udp, V4, V6};
use crate::rules::Rules;
use crate::service::{Method, Protocol};
use crate::tick::Tick;
use crate::track::Tracker;
use crate::translate::End;
use crate::translate::plain::{Translated, plain, port_words};
use crate::ways::{Detour, Masquerade};

/// Lanes by what is to be done with their packets.
#[derive(Clone, Copy, Default)]
struct Sorted {
    /// Those of direct routing, and all others that have an entry.
    direct: u64,
    tunnelled: u64,
    masqueraded: u64,
    /// Those without an entry.
    answers: u64,
}

impl Tracker {
    /// Stage: sends on the packets of established connections that the stage before left, with whatever method, and finds the entries of all
    /// that it leaves. Cost where that stage left nothing: one comparison a burst.
    #[inline]
    pub fn rewritten(&mut self, lanes: &mut Lanes, around: &mut Around<'_>) {
        let left = lanes.plain.all() & !lanes.through;
        if left != 0 {
            self.rewrite(left, lanes, around);
        }
    }

    #[inline(never)]
    fn rewrite(&mut self, left: u64, lanes: &mut Lanes, around: &mut Around<'_>) {
        let Plain { tcp_v4, udp_v4, tcp_v6, udp_v6 } = lanes.plain;
        let rest = lanes.all() & !lanes.through;
        let mut all = Sorted::default();
        let mut found = Found { left: 0, held: lanes.held, ports: 0 };
        for (kind, rewrite) in [
            (tcp_v4, Self::rewrite_kind::<V4, Tcp> as fn(&mut Self, (u64, bool), &mut Lanes, &mut Found, &mut Around<'_>) -> Sorted),
            (udp_v4, Self::rewrite_kind::<V4, Udp>),
            (tcp_v6, Self::rewrite_kind::<V6, Tcp>),
            (udp_v6, Self::rewrite_kind::<V6, Udp>),
        ] {
            let which = kind & left;
            if which != 0 {
                // Where others may take ids before these, in whatever order, these leave it to who sees all of them.
                let Sorted { direct, tunnelled, masqueraded, answers } = rewrite(self, (which, which == rest), lanes, &mut found, around);
                all.direct |= direct;
                all.tunnelled |= tunnelled;
                all.masqueraded |= masqueraded;
                all.answers |= answers;
            }
        }
        lanes.through |= left & !found.left;
        lanes.through_ports |= found.ports;
        let sent =
            [(Method::DirectRouting, all.direct), (Method::Tunnel, all.tunnelled), (Method::Masquerading, all.masqueraded | all.answers)];
        for (method, lanes_of) in sent {
            if (lanes_of & !found.left).count_ones() * 2 > lanes.plain.all().count_ones() {
                self.usual = method;
            }
        }
    }

    /// Sends packets of one kind on. Tunnelled ones get their ids here, or nowhere in this stage. Gives the lanes by their method.
    fn rewrite_kind<F: Translated, T: Transport>(
        &mut self,
        (which, gives_ids): (u64, bool),
        lanes: &mut Lanes,
        found: &mut Found,
        around: &mut Around<'_>,
    ) -> Sorted {
        let sorted = self.sort::<F, T>(which, lanes, around.rules);
        let Lanes { frames, hashes, guesses, entries, fates, .. } = &mut *lanes;
        let frames = frames.iter_mut().into_slice();
        let answers = if self.connections.has_replies() { sorted.answers } else { 0 };
        found.left |= sorted.answers & !answers;
        for i in each(answers) {
            self.connections.prefetch_answered(hashes[i]);
        }
        for i in each(which & !sorted.answers | answers) {
            let frame = &mut frames[i];
            let Some(id) = entries[i].or_else(|| self.connections.answered(hashes[i])) else {
                found.left |= 1 << i;
                continue;
            };
            // The stage before has tried what is where it looked.
            let tried = |method: Method| method == self.usual && id == guesses[i];
            let sent = if has(sorted.direct, i) {
                if tried(Method::DirectRouting) { None } else { self.send_found::<F, T>(frame.data_mut(), id, found.held, around) }
            } else if has(sorted.tunnelled, i) {
                self.tunnel_on::<F, T>(frame, id, found.held, gives_ids && found.left == 0, around)
            } else if has(sorted.masqueraded, i) {
                if tried(Method::Masquerading) { None } else { self.masquerade_found::<F, T>(frame.data_mut(), id, found.held, around) }
            } else {
                self.answer_found::<F, T>(frame.data_mut(), id, found.held, around)
            };
            found.take(i, id, sent, &mut fates[i]);
        }
        sorted
    }

    /// Sends a packet on that is not of the connection `id`, as an answer, if it is one, or as a request of which the entry was not where it was
    /// looked for; `id` is its entry then, if it has one.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_elsewhere<F: Translated, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: &mut EntryId,
        hash: u64,
        held: u64,
        around: &Around<'_>,
    ) -> Option<u16> {
        let head = F::head(frame)?;
        let word = F::word(head, self.connections.hasher());
        if self.connections.is_at(*id, word, F::ports(head), T::PROTOCOL as u8, F::V4) {
            return None;
        }
        if let Some(answered) = self.connections.answered(hash) {
            *id = answered;
            return self.answer_on::<F, T>(frame, answered, held, around);
        }
        *id = self.look_closer::<F, T>(head, hash).unwrap_or(EntryId::NONE);
        self.masquerade_on::<F, T>(frame, *id, held, around)
    }

    /// Finds the entries of packets of one kind, and asks for what comes next.
    #[inline(always)]
    fn sort<F: Family, T: Transport>(&self, which: u64, lanes: &mut Lanes, rules: &Rules) -> Sorted {
        let Lanes { frames, hashes, guesses, entries, .. } = &mut *lanes;
        let frames = frames.as_slice();
        let mut sorted = Sorted::default();
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
            } else {
                sorted.direct |= 1 << i;
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

    /// By masquerading, likewise.
    #[inline(never)]
    fn masquerade_found<F: Translated, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: EntryId,
        held: u64,
        around: &Around<'_>,
    ) -> Option<u16> {
        self.masquerade_on::<F, T>(frame, id, held, around)
    }

    /// As an answer, likewise.
    #[inline(never)]
    fn answer_found<F: Translated, T: Transport>(&mut self, frame: &mut [u8], id: EntryId, held: u64, around: &Around<'_>) -> Option<u16> {
        self.answer_on::<F, T>(frame, id, held, around)
    }

    /// Into a tunnel.
    #[inline(always)]
    pub(crate) fn tunnel_on<F: Family, T: Transport>(
        &mut self,
        frame: &mut Mbuf,
        id: EntryId,
        held: u64,
        gives_ids: bool,
        Around { rules, tunnels, now, .. }: &mut Around<'_>,
    ) -> Option<u16> {
        let head = F::head(frame.data())?;
        let (continues, length) = (T::continues(F::transport(head)), F::length(head));
        let established = const { entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::Tunnel, F::V4) };
        let addresses = F::word(head, self.connections.hasher());
        if !continues || held & bit(id) != 0 {
            return None;
        }
        let entry = self.connections.plain(id, established, addresses, F::ports(head))?;
        let server = entry.server();
        let Detour::Tunnel(lifetimes, tunnel) = rules.ways.detour(server)? else { return None };
        let way = rules.ways.way(server)?;
        let expires = entry.later(*now, T::timeout(*lifetimes))?;
        if length > tunnel.room {
            return None;
        }
        // Whoever lets packets be cut that ask not to be, or knows of a shorter way, has each looked at as a whole.
        if !rules.settings.pmtu_disc || tunnels.paths.towards(tunnel.destination, tunnel.mtu, *now) != tunnel.mtu {
            return None;
        }
        tunnel.wrap::<F>(frame, gives_ids.then_some(&mut **tunnels))?;
        entry.renew(expires);
        rules.ways.count(server, way, length);
        Some(tunnel.port)
    }

    /// To a masquerading real server.
    #[inline(always)]
    pub(crate) fn masquerade_on<F: Translated, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: EntryId,
        held: u64,
        Around { port, rules, now, .. }: &Around<'_>,
    ) -> Option<u16> {
        let established = const { entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::Masquerading, F::V4) };
        let from = WayWord::new(*port, u64::from_le_bytes(*frame.get(6..14)?.first_chunk()?));
        let head = F::head_mut(frame)?;
        let addresses = F::word(head, self.connections.hasher());
        let (entry, came) = self.connections.plain_from(id, established, addresses, F::ports(head))?;
        if came != from || held & bit(id) != 0 {
            return None;
        }
        let way = translate_request::<F, T>(head, entry, rules, *now)?;
        *frame.first_chunk_mut()? = way.addresses;
        Some(way.port)
    }

    /// To a client, what a masquerading real server answers on connection `id`, of which the hash is known to be right: one of 64 bits, which
    /// nobody can choose.
    #[inline(always)]
    pub(crate) fn answer_on<F: Translated, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: EntryId,
        held: u64,
        Around { rules, macs, now, .. }: &Around<'_>,
    ) -> Option<u16> {
        let established = const { entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::Masquerading, F::V4) };
        let head = F::head_mut(frame)?;
        let (continues, length) = (T::continues(F::transport(head)), F::length(head));
        let (vip, learned) = (F::vip(&self.connections, id)?, self.connections.learned(id));
        let entry = self.connections.entry_mut(id)?;
        // That somebody answers is news to the template of a UDP connection.
        let tells = T::PROTOCOL as u8 == Protocol::Udp as u8 && entry.flags & entry::flags::CONTROLLED != 0;
        if !entry.is_like(established) || tells || !continues || F::hops(head) <= 1 || held & bit(id) != 0 {
            return None;
        }
        let Detour::Masquerade(lifetimes, back) = rules.ways.detour(entry.server())? else { return None };
        // In the real server's place may be another one by now.
        let [_, vport] = port_words(entry.ports());
        let [sport, _] = port_words(F::ports(head));
        if sport != back.port_for(vport) || F::address(head, End::Source) != back.address {
            return None;
        }
        let answers = rules.ways.answers(entry.service())?;
        let expires = entry.later(*now, T::timeout(*lifetimes))?;
        let client = F::destination(head);
        if rules.is_own(client) {
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
        for traffic in [&back.share.traffic, answers] {
            traffic.count_out(length);
        }
        Some(hop.port)
    }
}

/// Makes a request of an established connection one for its real server, but for the Ethernet header. `None`, and nothing is changed, if it is
/// to be looked at as a whole.
#[inline(always)]
fn translate_request<'r, F: Translated, T: Transport>(
    head: &mut F::Head,
    entry: &mut Entry,
    rules: &'r Rules,
    now: Tick,
) -> Option<&'r Masquerade> {
    let (continues, length) = (T::continues(F::transport(head)), F::length(head));
    let server = entry.server();
    let Detour::Masquerade(lifetimes, there) = rules.ways.detour(server)? else { return None };
    let way = rules.ways.way(server)?;
    let expires = entry.later(now, T::timeout(*lifetimes))?;
    if !continues || length > there.mtu || F::hops(head) <= 1 || there.v4 != F::V4 {
        return None;
    }
    let [_, vport] = port_words(F::ports(head));
    plain::<F, T>(head, End::Destination, there.address, there.port_for(vport))?;
    entry.renew(expires);
    rules.ways.count(server, way, length);
    Some(there)
}
