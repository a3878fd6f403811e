//! How often one peer may ask, and how often it may be wrong about who it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Requests a second of one peer, and how many at once.
const RATE: f64 = 50.0;
const BURST: f64 = 200.0;
/// Wrong tokens a second of one peer, and how many at once.
const WRONG_RATE: f64 = 1.0 / 6.0;
const WRONG_BURST: f64 = 10.0;
/// The most peers that are remembered.
const MOST: usize = 4_096;

/// What one peer has left.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    requests: f64,
    wrong: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { requests: BURST, wrong: WRONG_BURST, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.requests = (self.requests + seconds * RATE).min(BURST);
        self.wrong = (self.wrong + seconds * WRONG_RATE).min(WRONG_BURST);
        self.at = now;
    }

    fn is_whole(&self) -> bool {
        self.requests >= BURST && self.wrong >= WRONG_BURST
    }
}

/// The allowances of peers over TCP: of at most 4096 at once, an IPv6 peer with its whole /64.
#[derive(Debug, Default)]
pub(super) struct Limits(HashMap<IpAddr, Allowance>);

impl Limits {
    /// Takes one request of a peer; whether it may ask.
    pub(super) fn take(&mut self, peer: IpAddr, now: Instant) -> bool {
        let allowance = self.of(peer, now);
        let may = allowance.requests >= 1.0 && allowance.wrong >= 1.0;
        allowance.requests -= f64::from(u8::from(may));
        may
    }

    /// Notes that a peer was wrong about who it is.
    pub(super) fn wrong(&mut self, peer: IpAddr, now: Instant) {
        self.of(peer, now).wrong -= 1.0;
    }

    fn of(&mut self, peer: IpAddr, now: Instant) -> &mut Allowance {
        let key = match peer.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.retain(|_, allowance| {
                allowance.refill(now);
                !allowance.is_whole()
            });
            // So many peers at once are a flood: one of them is forgotten for each that comes.
            let one = self.0.keys().next().copied().filter(|_| self.0.len() >= MOST);
            one.map(|one| self.0.remove(&one));
        }
        let allowance = self.0.entry(key).or_insert_with(|| Allowance::new(now));
        allowance.refill(now);
        allowance
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn peer_that_asks_too_often_waits_and_others_do_not() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!((0..1000).filter(|_| limits.take(one, now)).count(), 200);
        assert!(limits.take(other, now));
        assert_eq!((0..1000).filter(|_| limits.take(one, now + Duration::from_secs(1))).count(), 50);
    }

    #[test]
    fn peer_that_guesses_tokens_is_shut_out() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let peer = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        for _ in 0..10 {
            assert!(limits.take(peer, now));
            limits.wrong(peer, now);
        }
        assert!(!limits.take(peer, now) && !limits.take(neighbour, now));
        assert!(limits.take(peer, now + Duration::from_secs(7)));
    }

    #[test]
    fn peers_without_number_take_bounded_memory() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for number in 0..20_000_u32 {
            assert!(limits.take(IpAddr::V4(number.into()), now));
        }
        assert!(limits.0.len() <= MOST);
    }
}
