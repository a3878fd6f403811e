//! A TCP reset in the name of a VIP, for a service that has no real server left and is to say so (RFC 9293 section 3.10.7.1).

use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{EthernetHeader, Ipv4Header, Ipv6Header, TcpHeader, checksum, ether_type, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::parse::{L3, Packet};
use crate::tcp;

/// Writes the reset that answers `offending`, a whole TCP segment without RST, into a fresh frame to the MAC that it came from.
///
/// `None` when the pool is empty. A segment with an acknowledgement is answered with its number, any other with one of our own
/// for all that it holds.
pub fn write(pool: &Mempool, offending: &[u8], packet: &Packet, our_mac: [u8; 6]) -> Option<Mbuf> {
    let (ethernet, l3) = EthernetHeader::ref_from_prefix(offending).ok()?;
    let (segment, _) = TcpHeader::ref_from_prefix(offending.get(usize::from(packet.l4)..)?).ok()?;
    if segment.has(tcp::RST) {
        return None;
    }
    let acknowledges = segment.has(tcp::ACK);
    let headers = usize::from(packet.l4) - L3 + segment.data_offset();
    let data = u32::from(packet.length).checked_sub(u32::try_from(headers).ok()?)?;
    let length = data + u32::from(segment.has(tcp::SYN)) + u32::from(segment.has(tcp::FIN));
    let reset = TcpHeader {
        source_port: segment.destination_port,
        destination_port: segment.source_port,
        sequence: if acknowledges { segment.acknowledgement } else { 0.into() },
        acknowledgement: if acknowledges { 0.into() } else { segment.sequence.get().wrapping_add(length).into() },
        offset_reserved: 5 << 4,
        flags: if acknowledges { tcp::RST } else { tcp::RST | tcp::ACK },
        window: 0.into(),
        checksum: 0.into(),
        urgent: 0.into(),
    };
    let header = if packet.v4 { size_of::<Ipv4Header>() } else { size_of::<Ipv6Header>() };
    let mut frame = pool.alloc()?;
    let (ether_out, rest) = frame.append(L3 + header + TcpHeader::LEN)?.split_at_mut(L3);
    let ether_type = if packet.v4 { ether_type::IPV4 } else { ether_type::IPV6 };
    EthernetHeader { destination: ethernet.source, source: our_mac, ether_type: ether_type.into() }.write_to(ether_out).ok()?;
    let (ip_out, tcp_out) = rest.split_at_mut(header);
    reset.write_to(tcp_out).ok()?;
    let length = u16::try_from(TcpHeader::LEN).ok()?;
    let pseudo = if packet.v4 {
        let (from, _) = Ipv4Header::ref_from_prefix(l3).ok()?;
        let [high, low] = (length + 20).to_be_bytes();
        ip_out[..12].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol::TCP, 0, 0]);
        ip_out[12..16].copy_from_slice(&from.destination);
        ip_out[16..20].copy_from_slice(&from.source);
        let sum = checksum::internet(ip_out);
        ip_out[10..12].copy_from_slice(&sum.to_be_bytes());
        checksum::pseudo_v4(from.destination, from.source, protocol::TCP, length)
    } else {
        let (from, _) = Ipv6Header::ref_from_prefix(l3).ok()?;
        let [high, low] = length.to_be_bytes();
        ip_out[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, protocol::TCP, 64]);
        ip_out[8..24].copy_from_slice(&from.destination);
        ip_out[24..40].copy_from_slice(&from.source);
        checksum::pseudo_v6(&from.destination, &from.source, protocol::TCP, length.into())
    };
    let sum = checksum::segment(pseudo, tcp_out);
    tcp_out[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(frame)
}
