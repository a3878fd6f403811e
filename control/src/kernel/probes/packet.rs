//! What has to be known of a packet to give it another address, and how that is done.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ETHERNET;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// A packet in a frame, or in an ICMP error that quotes it.
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Where its IP header begins in the frame.
    l3: usize,
    /// Where its transport header begins in the frame.
    l4: usize,
    /// Source and destination port, of TCP and UDP; of an ICMP echo its identifier on our side, and 0 on the other.
    pub(super) ports: Option<(u16, u16)>,
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

impl Packet {
    /// `None` of what is no IP packet, is cut short, or is a fragment.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let version = match be16(frame, 12)? {
            IPV4 => 4,
            IPV6 => 6,
            _ => return None,
        };
        Self::at(frame, ETHERNET, version)
    }

    fn at(frame: &[u8], l3: usize, version: u8) -> Option<Self> {
        let first = *frame.get(l3)?;
        if first >> 4 != version {
            return None;
        }
        let (source, destination, protocol, l4): (IpAddr, IpAddr, u8, usize) = if version == 4 {
            let v4 = |at: usize| Some(Ipv4Addr::from(*frame.get(l3 + at..)?.first_chunk::<4>()?));
            let header = usize::from(first & 15) * 4;
            if header < 20 || be16(frame, l3 + 6)? & 0x3fff != 0 {
                return None;
            }
            (v4(12)?.into(), v4(16)?.into(), *frame.get(l3 + 9)?, l3 + header)
        } else {
            let v6 = |at: usize| Some(Ipv6Addr::from(*frame.get(l3 + at..)?.first_chunk::<16>()?));
            (v6(8)?.into(), v6(24)?.into(), *frame.get(l3 + 6)?, l3 + 40)
        };
        let ports = match (protocol, *frame.get(l4)?) {
            (TCP | UDP, _) => Some((be16(frame, l4)?, be16(frame, l4 + 2)?)),
            // An echo request has its sender's identifier (RFC 792, RFC 4443 section 4), and so has the reply.
            (ICMP, 8) | (ICMPV6, 128) => Some((be16(frame, l4 + 4)?, 0)),
            (ICMP, 0) | (ICMPV6, 129) => Some((0, be16(frame, l4 + 4)?)),
            _ => None,
        };
        Some(Self { source, destination, protocol, l3, l4, ports })
    }

    /// The packet that it quotes, if it is an ICMP error (RFC 792, RFC 4443 section 3).
    pub(super) fn quote(&self, frame: &[u8]) -> Option<Self> {
        match (self.protocol, *frame.get(self.l4)?) {
            (ICMP, 3 | 11 | 12) => Self::at(frame, self.l4 + 8, 4),
            (ICMPV6, 1..=4) => Self::at(frame, self.l4 + 8, 6),
            _ => None,
        }
    }

    pub(super) fn set_source(&self, frame: &mut [u8], new: IpAddr) -> Option<()> {
        self.set(frame, if new.is_ipv4() { 12 } else { 8 }, self.source, new)
    }

    pub(super) fn set_destination(&self, frame: &mut [u8], new: IpAddr) -> Option<()> {
        self.set(frame, if new.is_ipv4() { 16 } else { 24 }, self.destination, new)
    }

    /// Mends this ICMP error's checksum after the packet that it quotes was given `new` in the place of `old`.
    ///
    /// In IPv4 the quoted header's own checksum moved by as much the other way.
    pub(super) fn mend_icmp(&self, frame: &mut [u8], old: IpAddr, new: IpAddr) -> Option<()> {
        match (old, new) {
            (IpAddr::V6(old), IpAddr::V6(new)) => {
                mend(frame.get_mut(self.l4 + 2..)?.first_chunk_mut()?, &old.octets(), &new.octets());
                Some(())
            }
            (IpAddr::V4(_), IpAddr::V4(_)) => Some(()),
            _ => None,
        }
    }

    /// Puts `new` in the place of `old` and mends the checksums that cover it (RFC 1624). What an error quotes may be cut short
    /// behind its ports: its transport checksum stays as it is, and nobody looks at it.
    fn set(&self, frame: &mut [u8], at: usize, old: IpAddr, new: IpAddr) -> Option<()> {
        let (old, new) = match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => (old.octets().to_vec(), new.octets().to_vec()),
            (IpAddr::V6(old), IpAddr::V6(new)) => (old.octets().to_vec(), new.octets().to_vec()),
            _ => return None,
        };
        let (at, ipv4, quoted) = (self.l3 + at, new.len() == 4, self.l3 != ETHERNET);
        let checksum = match self.protocol {
            _ if quoted => None,
            TCP => Some(self.l4 + 16),
            // None at all in IPv4 stays none (RFC 768).
            UDP if ipv4 && frame.get(self.l4 + 6..self.l4 + 8)? == [0, 0] => None,
            UDP => Some(self.l4 + 6),
            ICMPV6 => Some(self.l4 + 2),
            _ => None,
        };
        frame.get_mut(at..at + new.len())?.copy_from_slice(&new);
        if ipv4 {
            mend(frame.get_mut(self.l3 + 10..)?.first_chunk_mut()?, &old, &new);
        }
        if let Some(at) = checksum {
            let field = frame.get_mut(at..)?.first_chunk_mut()?;
            mend(field, &old, &new);
            if self.protocol == UDP && *field == [0, 0] {
                *field = [0xff, 0xff];
            }
        }
        Some(())
    }
}

fn mend(checksum: &mut [u8; 2], old: &[u8], new: &[u8]) {
    let words = |bytes: &[u8], turn: u16| bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]) ^ turn)).sum::<u32>();
    let mut sum = u32::from(!u16::from_be_bytes(*checksum)) + words(old, 0xffff) + words(new, 0);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    *checksum = (!u16::try_from(sum).unwrap_or_default()).to_be_bytes();
}
