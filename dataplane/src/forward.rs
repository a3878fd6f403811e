//! Forwarding: the frame is changed in place so that it reaches its real server.

use dpdk::net::{Ipv4Header, Ipv6Header};
use zerocopy::FromBytes;

use crate::icmp_error::{Cause, IcmpErrors};
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{Kind, L3, Packet};
use crate::rules::{Rules, ServerRules};
use crate::service::Method;
use crate::settings::Ttl;
use crate::verdict::Verdict;

/// Stage: every frame that is bound for a real server by direct routing gets its Ethernet addresses; tunnels and
/// masquerading are left to the next stages. `macs` are the ports' own, by port.
#[inline]
pub fn forward(lanes: &mut Lanes, rules: &Rules, macs: &[[u8; 6]], errors: &mut IcmpErrors) {
    let left = lanes.all() & !lanes.through;
    let Lanes { frames, packets, fates, tunnelled, masqueraded, .. } = lanes;
    for i in each(left) {
        let Fate::Server(server, method) = fates[i] else { continue };
        let (frame, packet) = (&mut frames[i], &packets[i]);
        fates[i] = match rules.server(server) {
            None => Fate::Drop(Verdict::RealServerRemoved),
            Some(_) if method != Method::DirectRouting => {
                let other = if method == Method::Tunnel { &mut *tunnelled } else { &mut *masqueraded };
                *other |= 1 << i;
                continue;
            }
            Some(target) => match to_server(frame.data_mut(), packet, target, rules.settings.ttl, macs) {
                Ok(port) => Fate::Send(port, Verdict::Forwarded),
                Err((verdict, cause)) => {
                    // Never an error about an ICMP message: it may be an error itself (RFC 1122 section 3.2.2).
                    if let Some(cause) = cause.filter(|_| packet.kind == Kind::Flow) {
                        errors.ask(i, cause);
                    }
                    Fate::Drop(verdict)
                }
            },
        };
    }
}

/// The verdict on a frame that cannot be sent, and what the client is told.
pub(crate) type Refusal = (Verdict, Option<Cause>);

/// Makes the frame one for `target`; gives the port it leaves by, or the verdict and the ICMP error that the client gets.
///
/// Nothing of the frame is changed unless it can be sent.
#[inline]
fn to_server(frame: &mut [u8], packet: &Packet, target: &ServerRules, ttl: Ttl, macs: &[[u8; 6]]) -> Result<u16, Refusal> {
    let Some(hop) = target.next_hop else {
        return Err((if target.loops { Verdict::WouldLoop } else { Verdict::NoNextHop }, None));
    };
    let Some(source) = macs.get(usize::from(hop.port)) else { return Err((Verdict::NoNextHop, None)) };
    if packet.length > hop.mtu {
        // An IPv4 sender that allows fragments gets no error (RFC 792), and there is no fragmenting in direct routing.
        let may_tell = !packet.v4 || frame.get(L3 + 6).is_some_and(|flags| flags & 0x40 != 0);
        return Err((Verdict::TooBig, may_tell.then_some(Cause::TooBig(hop.mtu))));
    }
    if ttl == Ttl::Decrement && !decrement(frame, packet.v4) {
        return Err((Verdict::TtlExpired, Some(Cause::TimeExceeded)));
    }
    let Some((destination, rest)) = frame.split_first_chunk_mut::<6>() else { return Err((Verdict::Short, None)) };
    let Some(from) = rest.first_chunk_mut::<6>() else { return Err((Verdict::Short, None)) };
    *destination = hop.mac;
    *from = *source;
    Ok(hop.port)
}

/// Takes one from the TTL or hop limit; `false` when nothing would be left.
#[inline(always)]
pub(crate) fn decrement(frame: &mut [u8], v4: bool) -> bool {
    if v4 { decrement_ttl(frame) } else { decrement_hop_limit(frame) }
}

/// Takes one from the TTL and mends the header checksum; `false` when nothing would be left.
#[inline(always)]
fn decrement_ttl(frame: &mut [u8]) -> bool {
    let Some(Ok((ip, _))) = frame.get_mut(L3..).map(Ipv4Header::mut_from_prefix) else { return false };
    ip.ttl > 1 && ip.decrement_ttl()
}

#[inline]
fn decrement_hop_limit(frame: &mut [u8]) -> bool {
    let Some(Ok((ip, _))) = frame.get_mut(L3..).map(Ipv6Header::mut_from_prefix) else { return false };
    if ip.hop_limit <= 1 {
        return false;
    }
    ip.hop_limit -= 1;
    true
}
