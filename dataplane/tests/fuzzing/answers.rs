//! What comes from masquerading real servers, and from routers behind the director.

use std::net::{IpAddr, SocketAddr};

use super::choices::Choices;
use super::frames::{client, datagram, error as error_about, ip, packet, payload};
use crate::reference::connections::Key;
use crate::reference::wire::{ones, ones_sum};

/// What an end of a connection adds to a checksum.
fn sum_of(end: SocketAddr) -> u32 {
    let address = match end.ip() {
        IpAddr::V4(v4) => ones_sum(&v4.octets()),
        IpAddr::V6(v6) => ones_sum(&v6.octets()),
    };
    address + u32::from(end.port())
}

/// A real server's packet of a connection, as it sends it with the director for its router.
pub fn of_connection(c: &mut Choices<'_>, port: usize, key: &Key, from: SocketAddr) -> Vec<u8> {
    if key.protocol != 17 || !c.one_in(8) {
        return answer(c, port, key.protocol, from, key.client);
    }
    // A checksum that becomes 0 when the VIP's address and port take the place of these, which would mean that there is none.
    let payload = payload(c);
    let mut datagram = datagram(c, from, key.client, &payload);
    let sum = ones(sum_of(from) + u32::from(ones(sum_of(key.virtual_))));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(c, port, from.ip(), key.client.ip(), 17, &datagram)
}

/// A real server's packet to a client.
pub fn answer(c: &mut Choices<'_>, port: usize, protocol: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let payload = payload(c);
    packet(c, port, protocol, from, to, &payload, false)
}

/// An error about a request as it left us, to the client.
pub fn error(c: &mut Choices<'_>, port: usize, protocol: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    error_about(c, port, protocol, to, from, to.ip())
}

/// A packet of a real server's, or an error about one to it, that belongs to nothing.
pub fn unasked(c: &mut Choices<'_>, port: usize) -> Vec<u8> {
    let v4 = c.one_in(2);
    let place = c.below(5);
    let address = format!("{}{}", if v4 { "10.10.24." } else { "fd00:10::" }, if v4 { 21 + place } else { 15 + place });
    let from = SocketAddr::new(address.parse().expect("an address"), c.pick(&[80, 8080, 53, 0]));
    let to = SocketAddr::new(client(c, v4), 1000 + c.below(24) as u16);
    let protocol = c.pick(&[6, 17, 132]);
    if c.one_in(4) { error(c, port, protocol, from, to) } else { answer(c, port, protocol, from, to) }
}
