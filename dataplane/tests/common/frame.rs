//! Frames that read as a sentence: `tcp("198.51.100.1:1000", "10.10.24.88:80").syn()`.

use std::net::{IpAddr, SocketAddr};

use dpdk::net::checksum;

use super::{OUR_MAC, ROUTER_MAC};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

#[derive(Clone)]
pub struct Flow {
    source: SocketAddr,
    destination: SocketAddr,
    ttl: u8,
    payload: Vec<u8>,
    dont_fragment: bool,
    protocol: u8,
}

pub fn tcp(source: &str, destination: &str) -> Flow {
    Flow { source: socket(source), destination: socket(destination), ttl: 64, payload: Vec::new(), dont_fragment: true, protocol: 6 }
}

pub fn udp(source: &str, destination: &str) -> Vec<u8> {
    udp_of(source, destination, b"question")
}

pub fn udp_of(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut flow = tcp(source, destination);
    flow.protocol = 17;
    let mut datagram = Vec::new();
    datagram.extend(flow.source.port().to_be_bytes());
    datagram.extend(flow.destination.port().to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = flow.transport_checksum(&datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    flow.ip(&datagram)
}

/// An SCTP packet with one chunk of this type, whose checksum is not one.
pub fn sctp(source: &str, destination: &str, chunk: u8) -> Vec<u8> {
    let mut flow = tcp(source, destination);
    flow.protocol = 132;
    let mut packet = Vec::new();
    packet.extend(flow.source.port().to_be_bytes());
    packet.extend(flow.destination.port().to_be_bytes());
    packet.extend([0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef, chunk, 0, 0, 20]);
    packet.extend([7; 16]);
    flow.ip(&packet)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("address:port")
}

impl Flow {
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }
    pub fn may_be_fragmented(mut self) -> Self {
        self.dont_fragment = false;
        self
    }
    pub fn syn(&self) -> Vec<u8> {
        self.segment(SYN)
    }
    pub fn ack(&self) -> Vec<u8> {
        self.segment(ACK)
    }
    pub fn fin(&self) -> Vec<u8> {
        self.segment(FIN | ACK)
    }
    pub fn rst(&self) -> Vec<u8> {
        self.segment(RST)
    }

    pub fn segment(&self, flags: u8) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        segment.extend(&self.payload);
        let sum = self.transport_checksum(&segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.ip(&segment)
    }

    fn transport_checksum(&self, segment: &[u8]) -> u16 {
        let pseudo = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => checksum::pseudo_v4(s.octets(), d.octets(), self.protocol, segment.len() as u16),
            (IpAddr::V6(s), IpAddr::V6(d)) => checksum::pseudo_v6(&s.octets(), &d.octets(), self.protocol, segment.len() as u32),
            _ => panic!("two families"),
        };
        checksum::segment(pseudo, segment)
    }

    fn ip(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(OUR_MAC);
        frame.extend(ROUTER_MAC);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                frame.extend([8, 0]);
                let mut ip = vec![0x45, 0];
                ip.extend((20 + payload.len() as u16).to_be_bytes());
                ip.extend([0x12, 0x34, if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, self.protocol, 0, 0]);
                ip.extend(s.octets());
                ip.extend(d.octets());
                let sum = checksum::internet(&ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([self.protocol, self.ttl]);
                frame.extend(s.octets());
                frame.extend(d.octets());
            }
            _ => panic!("two families"),
        }
        frame.extend(payload);
        frame
    }
}

/// Mends the IPv4 header checksum after a test changed the header.
pub fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    let header = 14 + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let sum = checksum::internet(&frame[14..header]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

pub fn arp_request(sender_mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(sender_mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender_mac);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

pub fn echo_request(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x19, 0x29, 0, 1];
    icmp.extend(b"ping");
    let sum = checksum::internet(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp_v4(source, destination, &icmp)
}

/// An IPv4 packet with this ICMP message, checksum as given.
pub fn icmp_v4(source: [u8; 4], destination: [u8; 4], icmp: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(OUR_MAC);
    frame.extend(ROUTER_MAC);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + icmp.len() as u16).to_be_bytes());
    frame.extend([0, 1, 0, 0, 50, 1, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend(icmp);
    mended(frame)
}

/// An ICMP "destination unreachable, fragmentation needed" about `quoted`, an IP packet of the VIP's to a client.
pub fn fragmentation_needed(router: [u8; 4], vip: [u8; 4], quoted: &[u8], mtu: u16) -> Vec<u8> {
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&quoted[..28]);
    let sum = checksum::internet(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp_v4(router, vip, &icmp)
}

/// An ICMPv6 message from `source` to `destination`, checksummed, sent to `mac`.
pub fn icmpv6(mac: [u8; 6], source: &str, destination: &str, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("IPv6").octets();
    let (s, d) = (octets(source), octets(destination));
    message[2..4].fill(0);
    let sum = checksum::segment(checksum::pseudo_v6(&s, &d, 58, message.len() as u32), &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::new();
    frame.extend(mac);
    frame.extend(ROUTER_MAC);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, hop_limit]);
    frame.extend(s);
    frame.extend(d);
    frame.extend(message);
    frame
}

/// A neighbour solicitation's ICMPv6 message for `target`, with the sender's MAC as option unless `bare`.
pub fn solicitation(target: &str, bare: bool) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.parse::<std::net::Ipv6Addr>().expect("IPv6").octets());
    if !bare {
        message.extend([1, 1]);
        message.extend(ROUTER_MAC);
    }
    message
}

/// The fragments of an IP packet's frame, whose payloads have these lengths; what is left over goes into the last one.
pub fn cut(frame: &[u8], id: u32, lengths: &[usize]) -> Vec<Vec<u8>> {
    let v4 = frame[12] == 8;
    let payload = if v4 { 34 } else { 54 };
    let mut at = payload;
    let mut pieces = Vec::new();
    for n in 0..=lengths.len() {
        let end = lengths.get(n).map_or(frame.len(), |length| at + length);
        pieces.push(piece(frame, id, at - payload, end < frame.len(), &frame[at..end]));
        at = end;
    }
    pieces
}

/// A fragment of the packet in `frame`, with these bytes at this offset.
pub fn piece(frame: &[u8], id: u32, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out;
    if frame[12] == 8 {
        out = frame[..34].to_vec();
        out[16..18].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
        out[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        out[20..22].copy_from_slice(&((offset as u16 / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        out = mended(out);
    } else {
        out = frame[..54].to_vec();
        out[18..20].copy_from_slice(&(8 + bytes.len() as u16).to_be_bytes());
        let next = std::mem::replace(&mut out[20], 44);
        out.extend([next, 0]);
        out.extend((offset as u16 | u16::from(more)).to_be_bytes());
        out.extend(id.to_be_bytes());
    }
    out.extend(bytes);
    out
}
