//! What comes from masquerading real servers, and from routers behind the director.

use std::net::SocketAddr;

use super::choices::Choices;
use super::frames::{client, error as error_about, packet, payload};

/// A real server's packet to a client, as it sends it with the director for its router.
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
