//! ICMP echo (RFC 792, RFC 4443 section 4).
//!
//! One raw socket for each address of ours that asks; answers are told apart by identifier, address and a token.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dpdk::net::checksum;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::health::connect::Failure;

/// How often a request is sent at most: one that is lost does not fail a check.
const TRIES: u32 = 3;

/// Bytes of an echo's header, and of the token behind it.
const HEADER: usize = 8;
const TOKEN: usize = 8;

/// The sockets that echo requests leave by; clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub(in crate::health) struct Pings(Arc<Mutex<HashMap<IpAddr, Arc<Pinger>>>>);

impl Pings {
    /// Asks `to`, from our address `from` where it is given.
    pub(super) async fn ask(&self, from: Option<IpAddr>, to: IpAddr, until: Instant) -> Result<(), Failure> {
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let unable = |error: io::Error| Failure::Unable(format!("no ICMP socket: {error}"));
        let pinger = self.pinger(from.unwrap_or(any)).map_err(unable)?;
        let (request, mut answer) = pinger.request(to)?;
        let began = Instant::now();
        let patience = until.saturating_duration_since(began) / TRIES;
        for turn in 1..=TRIES {
            match pinger.socket.try_send_to(&request.bytes, SocketAddr::new(to, 0)) {
                Ok(_) => {}
                // A full queue is as good as a lost packet; that nobody is there may change.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(unable(error)),
            }
            let end = if turn == TRIES { until } else { began + patience * turn };
            if let Ok(Ok(())) = timeout_at(end, &mut answer).await {
                return Ok(());
            }
        }
        Err(Failure::Silent)
    }

    fn pinger(&self, from: IpAddr) -> io::Result<Arc<Pinger>> {
        let mut pingers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pinger) = pingers.get(&from) {
            return Ok(Arc::clone(pinger));
        }
        // Addresses of ours that are not there any more.
        pingers.retain(|_, pinger| Arc::strong_count(pinger) > 1 || !pinger.waiting().by_id.is_empty());
        let pinger = Arc::new(Pinger::new(from)?);
        pingers.insert(from, Arc::clone(&pinger));
        Ok(pinger)
    }
}

/// Who waits for which answer.
#[derive(Debug, Default)]
struct Waiting {
    by_id: HashMap<u16, (IpAddr, [u8; TOKEN], oneshot::Sender<()>)>,
    last: u16,
}

#[derive(Debug)]
struct Pinger {
    socket: Arc<UdpSocket>,
    waiting: Arc<Mutex<Waiting>>,
    chance: RandomState,
    reader: JoinHandle<()>,
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A request under way; its identifier is free again when it is dropped.
struct Request {
    id: u16,
    bytes: Vec<u8>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).by_id.remove(&self.id);
    }
}

impl Pinger {
    fn new(from: IpAddr) -> io::Result<Self> {
        let (family, protocol) =
            if from.is_ipv4() { (AddressFamily::Inet, SockProtocol::Icmp) } else { (AddressFamily::Inet6, SockProtocol::IcmpV6) };
        let raw = socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(raw.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        // The type knows datagrams and addresses, and these are both.
        let socket = Arc::new(UdpSocket::from_std(raw.into())?);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&waiting)));
        Ok(Self { socket, waiting, chance: RandomState::new(), reader })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An echo request with an identifier that no other has, and whoever waits for its answer.
    fn request(&self, to: IpAddr) -> Result<(Request, oneshot::Receiver<()>), Failure> {
        let mut waiting = self.waiting();
        let last = waiting.last;
        let free = (1..=u16::MAX).map(|step| last.wrapping_add(step)).find(|id| !waiting.by_id.contains_key(id));
        let id = free.ok_or_else(|| Failure::Unable("65535 echo requests are under way".to_owned()))?;
        waiting.last = id;
        let token = self.chance.hash_one((id, Instant::now())).to_be_bytes();
        let mut bytes = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
        bytes.extend(id.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(token);
        if to.is_ipv4() {
            // In IPv6 the kernel writes it (RFC 3542 section 3.1).
            let sum = checksum::internet(&bytes).to_be_bytes();
            bytes.get_mut(2..4).unwrap_or_default().copy_from_slice(&sum);
        }
        let (tell, told) = oneshot::channel();
        waiting.by_id.insert(id, (to, token, tell));
        drop(waiting);
        Ok((Request { id, bytes, waiting: Arc::clone(&self.waiting) }, told))
    }
}

/// Gives answers to whoever waits for them. A raw socket sees all ICMP messages of the machine: what nobody waits for is dropped.
async fn read(socket: Arc<UdpSocket>, waiting: Arc<Mutex<Waiting>>) {
    let mut buffer = [0; 2_048];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => (length, from.ip()),
            Err(why) => {
                tracing::debug!(%why, "an ICMP socket cannot be read");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some((id, token)) = reply(buffer.get(..length).unwrap_or_default(), from.is_ipv4()) else { continue };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.by_id.get(&id).is_some_and(|(asked, wanted, _)| *asked == from && *wanted == token)
            && let Some((_, _, tell)) = waiting.by_id.remove(&id)
        {
            // Whoever has given up is gone.
            let _ = tell.send(());
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, WouldBlock};
    matches!(error.kind(), WouldBlock | HostUnreachable | NetworkUnreachable) || error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// Identifier and token of an echo reply; in IPv4 the IP header comes with it.
fn reply(packet: &[u8], ipv4: bool) -> Option<(u16, [u8; TOKEN])> {
    let start = if ipv4 { usize::from(packet.first()? & 15) * 4 } else { 0 };
    let message = packet.get(start..)?;
    let kind = if ipv4 { 0 } else { 129 };
    if *message.first()? != kind {
        return None;
    }
    let id = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    Some((id, *message.get(HEADER..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_is_read_with_its_identifier_and_token_and_nothing_else_is() {
        let mut v4 = vec![0x45; 20];
        v4.extend([0, 0, 0, 0, 0, 7, 0, 1]);
        v4.extend(b"12345678rest");
        assert_eq!(reply(&v4, true), Some((7, *b"12345678")));
        assert_eq!(reply(&v4[20..], false), None, "an echo reply of IPv4 is none of IPv6");
        v4[20] = 8;
        assert_eq!(reply(&v4, true), None, "a request");
        let v6 = [&[129, 0, 0, 0, 0, 9, 0, 1], &b"87654321"[..]].concat();
        assert_eq!(reply(&v6, false), Some((9, *b"87654321")));
        for cut in 0..v6.len() {
            assert_eq!(reply(&v6[..cut], false), None);
        }
    }
}
