//! The loop that takes connections, and how many of them there may be.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connection::converse;
use crate::api::tls::{Tls, identity};
use crate::api::who::Peer;

/// The most connections at once on each socket; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// The most of them from one address other than loopback; more are closed.
const OF_ONE_ADDRESS: usize = 32;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file or memory for a connection.
const BREATH: Duration = Duration::from_millis(100);

/// A socket that connections come by.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

impl Listener {
    async fn accept(&self) -> Accepted {
        loop {
            let accepted = match self {
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| Accepted::Tcp(stream, address)),
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(why) if is_of_one_connection(&why) => {}
                Err(why) => {
                    tracing::warn!("a connection to the API cannot be taken: {why}");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

fn is_of_one_connection(why: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(why.kind(), K::ConnectionRefused | K::ConnectionAborted | K::ConnectionReset)
}

/// What a connection is answered with.
#[derive(Clone)]
pub(super) struct Answering {
    pub(super) routes: Router,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Takes connections until it is over, then waits for those under way.
pub(super) async fn take(listener: Listener, answering: Answering) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let crowd = Crowd::default();
    let mut under_way = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&free).acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = over(answering.stopping.clone()) => break,
            next = next => next,
        };
        under_way.spawn(answer(accepted, permit, crowd.clone(), answering.clone()));
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn over(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone: then it is over, too.
    drop(stopping.wait_for(|stop| *stop).await);
}

async fn answer(accepted: Accepted, _permit: Option<OwnedSemaphorePermit>, crowd: Crowd, answering: Answering) {
    let Answering { routes, tls, stopping } = answering;
    let (stream, address) = match accepted {
        Accepted::Unix(stream) => {
            // Who asks without a user that the kernel knows gets no answer.
            if let Ok(credentials) = stream.peer_cred() {
                converse(stream, Peer::Unix { uid: credentials.uid() }, routes, over(stopping)).await;
            }
            return;
        }
        Accepted::Tcp(stream, address) => (stream, address),
    };
    let Some(_place) = crowd.enter(address.ip()) else { return };
    let Some(tls) = tls else {
        return converse(stream, Peer::Tcp { address, certificate: None }, routes, over(stopping)).await;
    };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => {
            let certificate = identity(stream.get_ref().1);
            converse(stream, Peer::Tcp { address, certificate }, routes, over(stopping)).await;
        }
        Ok(Err(why)) => tracing::debug!("no TLS with {address}: {why}"),
        Err(_) => tracing::debug!("no TLS with {address}: it took too long"),
    }
}

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Crowd {
    /// A place for one more connection, if there is one; it is free again when it is dropped.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= OF_ONE_ADDRESS && !address.is_loopback() {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { crowd: self.clone(), address })
    }
}

/// One connection of an address.
struct Place {
    crowd: Crowd,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_so_many_connections_and_no_more_until_one_ends() {
        let crowd = Crowd::default();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut places: Vec<Place> = (0..OF_ONE_ADDRESS).map(|_| crowd.enter(one).unwrap()).collect();
        assert!(crowd.enter(one).is_none() && crowd.enter(other).is_some());
        places.pop();
        assert!(crowd.enter(one).is_some());
        drop(places);
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
