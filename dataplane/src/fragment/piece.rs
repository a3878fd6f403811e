//! A fragment's own header, and what the first fragment of a datagram must hold.

use dpdk::net::{Ipv4Header, Ipv6FragmentHeader, TcpHeader, UdpHeader, protocol};
use zerocopy::FromBytes;

use crate::connection::Key;
use crate::parse::{L3, Packet, extension_headers};
use crate::sctp;
use crate::verdict::Verdict;

/// Bytes of the longest datagram (RFC 791, RFC 8200 section 4.5).
const LONGEST: usize = 65_535;

/// Bytes of SCTP's common header and that of the first chunk (RFC 9260 section 3).
const SCTP_HEADER: usize = 16;

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// What all fragments of a datagram have in common, in the form of a connection's key: source, destination, and the id in
    /// the place of the ports. The protocol belongs to it for IPv4 (RFC 791); for IPv6 it is that of the fragment header.
    pub(super) datagram: Key,
    /// First and last byte (exclusive) of it within the datagram.
    pub(super) range: (usize, usize),
    /// Whether others follow.
    pub(super) more: bool,
    /// The protocol of what it carries, as far as a fragment header says.
    pub(super) next: u8,
    /// Where its bytes begin, from the start of the frame.
    pub(super) at: usize,
}

impl Piece {
    /// Reads the headers of a packet that parse found to be a fragment; the verdict if they break their own rules.
    pub(super) fn read(frame: &[u8], packet: &Packet) -> Result<Self, Verdict> {
        let header = usize::from(packet.l4);
        let end = L3 + usize::from(packet.length);
        let (id, offset, more, next, at);
        if packet.v4 {
            let Some(Ok((ip, _))) = frame.get(L3..).map(Ipv4Header::ref_from_prefix) else { return Err(Verdict::Short) };
            (id, offset, more) =
                (u32::from(ip.identification.get()), ip.fragment_offset(), ip.flags_fragment.get() & Ipv4Header::MORE_FRAGMENTS != 0);
            (next, at) = (ip.protocol, header);
        } else {
            let Some(Ok((fragment, _))) = frame.get(header..).map(Ipv6FragmentHeader::ref_from_prefix) else { return Err(Verdict::Short) };
            (id, offset, more) = (fragment.identification.get(), fragment.fragment_offset(), fragment.more_fragments());
            (next, at) = (fragment.next_header, header + size_of::<Ipv6FragmentHeader>());
        }
        let length = end.checked_sub(at).ok_or(Verdict::FragmentBad)?;
        if length == 0 || (more && length % 8 != 0) || offset + length > LONGEST {
            return Err(Verdict::FragmentBad);
        }
        let [a, b, c, d] = id.to_be_bytes();
        let datagram = Key { client_port: u16::from_be_bytes([a, b]), virtual_port: u16::from_be_bytes([c, d]), ..packet.key };
        Ok(Self { datagram, range: (offset, offset + length), more, next, at })
    }

    /// Makes `packet` the flow that this first fragment belongs to, as if it were whole. `false` for what is no flow.
    ///
    /// The transport header must be in it (RFC 1858, RFC 7112): the verdict if it is not, or contradicts itself.
    pub(super) fn complete(&self, frame: &[u8], packet: &mut Packet) -> Result<bool, Verdict> {
        let end = L3 + usize::from(packet.length);
        let (next, at) = if packet.v4 { (self.next, self.at) } else { extension_headers(frame, self.next, self.at, end)? };
        let l4 = frame.get(at..end.min(frame.len())).unwrap_or_default();
        packet.key.protocol = next;
        // It is at most `end`, which is 14 more than a 16-bit length.
        packet.l4 = u16::try_from(at).map_err(|_| Verdict::FragmentBad)?;
        match next {
            protocol::TCP => {
                let Ok((tcp, _)) = TcpHeader::ref_from_prefix(l4) else { return Err(Verdict::FragmentTiny) };
                if tcp.data_offset() < size_of::<TcpHeader>() {
                    return Err(Verdict::BadHeaderLength);
                }
                if tcp.data_offset() > l4.len() {
                    return Err(Verdict::FragmentTiny);
                }
                packet.tcp_flags = tcp.flags;
                packet.key.client_port = tcp.source_port.get();
                packet.key.virtual_port = tcp.destination_port.get();
            }
            protocol::UDP => {
                let Ok((udp, _)) = UdpHeader::ref_from_prefix(l4) else { return Err(Verdict::FragmentTiny) };
                // A datagram that is longer than its first fragment says so.
                if usize::from(udp.length.get()) <= end - at {
                    return Err(Verdict::BadLength);
                }
                packet.key.client_port = udp.source_port.get();
                packet.key.virtual_port = udp.destination_port.get();
            }
            protocol::SCTP => {
                let Some((client_port, virtual_port, flags)) = sctp::read(l4) else { return Err(Verdict::FragmentTiny) };
                packet.tcp_flags = flags;
                packet.key.client_port = client_port;
                packet.key.virtual_port = virtual_port;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Bytes that no later fragment of this datagram may lie in: its transport header, or the least that there is of it.
    pub(super) const fn header(protocol: u8) -> usize {
        match protocol {
            protocol::TCP => size_of::<TcpHeader>(),
            protocol::SCTP => SCTP_HEADER,
            _ => size_of::<UdpHeader>(),
        }
    }
}
