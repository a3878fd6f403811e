//! Tunnels: the whole packet is carried inside another IP packet to its real server, at once (RFC 2003, RFC 2473) or behind
//! a GUE or GRE header.
//!
//! The outer headers are written into the headroom in front of the frame. What they take over from the inner one is what IPVS
//! takes over: DSCP, ECN, TTL and "do not fragment".

mod error;
mod header;
mod path_mtu;
mod prepared;

use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{EthernetHeader, ether_type};
use zerocopy::IntoBytes;

use crate::cut::{self, Pieces};
use crate::forward::{Refusal, decrement};
use crate::icmp_error::{Cause, IcmpErrors};
use crate::lanes::{Fate, Lanes};
use crate::parse::{Kind, L3, Packet};
use crate::rules::{Rules, ServerRules};
use crate::tick::Tick;
use crate::verdict::Verdict;
pub use error::Around;
use header::{Inner, Outer, flow_port, ip_header};
pub use header::{outer_length, write_outer};
pub use path_mtu::PathMtus;
pub use prepared::Prepared;

/// Every link carries IPv6 packets of this length (RFC 8200 section 5), so no sender is asked for shorter ones.
const LEAST_V6: u16 = 1280;

/// What a worker needs for tunnels: ids for packets that may be fragmented, fragments on their way out, and what is known of
/// the ways to the real servers.
#[derive(Debug)]
pub struct Tunnels {
    next_id: u32,
    id_step: u32,
    /// Second and later fragments, also of masqueraded packets; the first ones are in their lanes.
    pub later_fragments: Pieces,
    /// How long a packet may be on its way to a real server.
    pub paths: PathMtus,
}

/// What the stage works with beside the packet and its real server.
struct Room<'a> {
    macs: &'a [[u8; 6]],
    pool: &'a Mempool,
    now: Tick,
    pmtu_disc: bool,
}

impl Tunnels {
    /// For worker `index` of `workers`, which share the ids among them (RFC 6864).
    pub fn new(index: usize, workers: usize) -> Self {
        let number = |n| u32::try_from(n).unwrap_or(1);
        Self { next_id: number(index), id_step: number(workers), later_fragments: Pieces::new(), paths: PathMtus::new() }
    }

    /// Stage: every frame that forward left for a tunnel gets its outer headers. `macs` are the ports' own, by port; `pool` is
    /// where fragments come from. Cost without tunnels: one comparison a burst.
    #[inline]
    pub fn encapsulate(&mut self, lanes: &mut Lanes, rules: &Rules, macs: &[[u8; 6]], pool: &Mempool, errors: &mut IcmpErrors, now: Tick) {
        while lanes.tunnelled != 0 {
            let i = lanes.tunnelled.trailing_zeros() as usize;
            lanes.tunnelled &= lanes.tunnelled - 1;
            let Fate::Server(server, _) = lanes.fates[i] else { continue };
            let packet = lanes.packets[i];
            let sent = match rules.server(server) {
                Some(target) => {
                    self.wrap(&mut lanes.frames[i], &packet, target, &Room { macs, pool, now, pmtu_disc: rules.settings.pmtu_disc })
                }
                None => Err((Verdict::RealServerRemoved, None)),
            };
            lanes.fates[i] = match sent {
                Ok(port) => Fate::Send(port, Verdict::Forwarded),
                Err((verdict, cause)) => {
                    if let Some(cause) = cause.filter(|_| packet.kind == Kind::Flow) {
                        errors.ask(i, cause);
                    }
                    Fate::Drop(verdict)
                }
            };
        }
    }

    /// Puts the frame into a tunnel to `target`; gives the port that it leaves by.
    ///
    /// Of a frame that is refused nothing is changed but its TTL, which IPVS lowers before it looks at the length.
    fn wrap(&mut self, frame: &mut Mbuf, packet: &Packet, target: &ServerRules, around: &Room<'_>) -> Result<u16, Refusal> {
        let Some(hop) = target.next_hop else {
            return Err((if target.loops { Verdict::WouldLoop } else { Verdict::NoNextHop }, None));
        };
        let (Some(mac), Some(tunnel)) = (around.macs.get(usize::from(hop.port)), target.server.tunnel) else {
            return Err((Verdict::NoNextHop, None));
        };
        if !decrement(frame.data_mut(), packet.v4) {
            return Err((Verdict::TtlExpired, Some(Cause::TimeExceeded)));
        }
        let mut inner = Inner::of(frame.data(), packet.v4).ok_or((Verdict::Short, None))?;
        inner.may_fragment |= packet.v4 && !around.pmtu_disc;
        let destination = target.server.address;
        let v4 = destination.is_v4();
        let added = ip_header(v4) + tunnel.encapsulation.overhead();
        // At most 52.
        let overhead = u16::try_from(added).unwrap_or(u16::MAX);
        let mtu = self.paths.towards(destination, hop.mtu, around.now);
        let room = mtu.saturating_sub(overhead);
        let fits = packet.length <= room;
        if !fits {
            let told = if packet.v4 { (!inner.may_fragment).then_some(room) } else { Some(room.max(LEAST_V6)) };
            if let Some(most) = told.filter(|most| packet.length > *most) {
                return Err((Verdict::TooBig, Some(Cause::TooBig(most))));
            }
        }
        // Only what is in one piece can be cut or summed up, and no IP packet is longer than its length field says.
        if (!fits || tunnel.encapsulation.has_checksum()) && !frame.is_contiguous() || packet.length.checked_add(overhead).is_none() {
            return Err((Verdict::TooBig, None));
        }
        // What a device added behind the packet to fill the frame would be carried along.
        let _ = frame.truncate(L3 + usize::from(packet.length));
        frame.prepend(added).ok_or((Verdict::NoBuffer, None))?;
        let ethernet =
            EthernetHeader { destination: hop.mac, source: *mac, ether_type: if v4 { ether_type::IPV4 } else { ether_type::IPV6 }.into() };
        // A packet in one piece that stays so needs no id (RFC 6864 section 4.1).
        let id = if inner.may_fragment && (v4 || !fits) { self.id() } else { 0 };
        let outer = Outer {
            source: tunnel.source,
            destination,
            encapsulation: tunnel.encapsulation,
            id: low_half(id),
            source_port: flow_port(&packet.key),
            length: packet.length,
        };
        let written = ethernet.write_to_prefix(frame.data_mut()).ok().and_then(|()| outer.write(frame.data_mut(), &inner));
        written.ok_or((Verdict::Short, None))?;
        if !fits {
            cut::cut(frame, v4, id, (mtu, hop.port), around.pool, &mut self.later_fragments)?;
        }
        Ok(hop.port)
    }

    /// The next id, of which an outer IPv4 header has the low half.
    #[inline]
    fn id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(self.id_step);
        self.next_id
    }
}

/// What an IPv4 header holds of an id.
const fn low_half(id: u32) -> u16 {
    let [.., high, low] = id.to_be_bytes();
    u16::from_be_bytes([high, low])
}
