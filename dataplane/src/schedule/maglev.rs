//! `mh`: consistent hashing after Maglev (Eisenbud and others, NSDI 2016, section 3.4), with the numbers that IPVS chose.
//!
//! A director of the kernel's and this one pick the same real server for the same client. A real server that comes or goes moves
//! few clients but its own, and one that becomes quiescent moves none: its clients get nobody, or with `mh-fallback` another.

use crate::address::Address;
use crate::schedule::buckets::{NOBODY, Seat, folded};
use crate::schedule::siphash::siphash13;
use crate::schedule::weighted_round_robin::greatest_common_divisor;
use crate::schedule::{Pick, takes_new};

/// Buckets: a prime, the one that Linux is built with (`CONFIG_IP_VS_MH_TAB_INDEX` 12).
pub(super) const BUCKETS: u32 = 4093;
/// Weights are scaled down until the greatest has so many bits.
const WEIGHT_BITS: u32 = 6;
/// Both halves of the key that finds a client's bucket, and where a real server begins.
const WHERE: u64 = 2_654_435_761;
/// Both halves of the key that says how far a real server goes from one bucket to the next.
const STEP: u64 = 2_654_446_892;

/// Linux's `hsiphash` of four bytes.
#[inline]
fn hash(key: u64, word: u32) -> u32 {
    (siphash13([key; 2], &[], 4 << 56 | u64::from(word)) & 0xffff_ffff) as u32
}

/// What is hashed of a real server's address: IPVS reads it as one of the service's family, whichever it is of.
fn word(ipv6: bool, address: Address) -> u32 {
    if ipv6 || address.is_v4() { folded(address) } else { (address.0 >> 96) as u32 }
}

/// A real server on its way over the buckets.
struct Walk {
    place: u32,
    at: u32,
    step: u32,
    /// Buckets that it takes in a row when it is its turn.
    turns: u32,
}

/// The owner of each bucket; nobody's if no weight was ever more than 0.
///
/// In list order, each real server takes the next free buckets on its way, as many as its last weight says, over and over. Of
/// more real servers than buckets the oldest take part.
pub(super) fn fill(ipv6: bool, seats: &[Seat]) -> Vec<u32> {
    let mut owners = vec![NOBODY; BUCKETS as usize];
    let divisor = seats.iter().fold(0, |divisor, seat| greatest_common_divisor(divisor, seat.last_weight));
    let Some(greatest) = seats.iter().map(|seat| seat.last_weight).max().and_then(|weight| weight.checked_div(divisor)) else {
        return owners;
    };
    let shift = (u32::BITS - greatest.leading_zeros()).saturating_sub(WEIGHT_BITS);
    let beyond = seats.len().saturating_sub(owners.len());
    let mut walks: Vec<Walk> = (0..)
        .zip(seats)
        .skip(beyond)
        .filter(|(_, seat)| seat.last_weight != 0)
        .map(|(place, seat)| {
            let word = word(ipv6, seat.address).wrapping_add(u32::from(seat.port));
            let turns = ((seat.last_weight / divisor) >> shift).max(1);
            Walk { place, at: hash(WHERE, word) % BUCKETS, step: hash(STEP, word) % (BUCKETS - 1) + 1, turns }
        })
        .collect();
    let mut free = owners.len();
    while free > 0 && !walks.is_empty() {
        for walk in &mut walks {
            for _ in 0..walk.turns.min(u32::try_from(free).unwrap_or(BUCKETS)) {
                // The number of buckets is prime, so the way leads over all of them, and one is free.
                while owners[walk.at as usize] != NOBODY {
                    walk.at = (walk.at + walk.step) % BUCKETS;
                }
                owners[walk.at as usize] = walk.place;
                free -= 1;
            }
        }
    }
    owners
}

/// The member that the client's bucket belongs to. `port` (`mh-port`): the client's port counts too. `fallback` (`mh-fallback`): if
/// that member takes no new connections, the first that does among those of further buckets, each found by another hash.
///
/// Cost: one hash and one load; while a client's own real server takes none, with fallback, on average as many as there are buckets
/// for each that belongs to one that does, at most 4093.
#[inline]
pub(super) fn pick(port: bool, fallback: bool, pick: &Pick<'_>) -> Option<usize> {
    let word = folded(pick.client).wrapping_add(if port { u32::from(pick.client_port) } else { 0 });
    let home = hash(WHERE, word) % BUCKETS;
    let taking = |bucket: u32| pick.buckets.taking(bucket as usize, pick.members);
    let found = taking(home);
    if found.is_some() || !fallback || !pick.members.iter().any(takes_new) {
        return found;
    }
    (0..BUCKETS).find_map(|offset| taking(hash(WHERE, word.wrapping_add((offset + home) % BUCKETS)) % BUCKETS))
}

#[cfg(test)]
mod tests;
