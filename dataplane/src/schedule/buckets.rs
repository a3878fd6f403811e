//! Tables of the hashing schedulers, built by the control plane: the packet path only reads them.

use std::sync::Arc;

use crate::address::Address;
use crate::schedule::{maglev, takes_new};
use crate::service::{Member, SchedulerKind};

/// How many buckets `sh` and `dh` have.
pub(super) const BUCKETS: usize = 256;
/// The bucket belongs to nobody.
pub(super) const NOBODY: u32 = u32::MAX;

/// Which member of a service each bucket of its scheduler belongs to: 256 places for `sh` and `dh`, 4093 for `mh`, none for others.
///
/// Made for one list of members; cheap to clone. Memory: 4 bytes a bucket, shared by all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(Arc<[u32]>);

/// What a real server's share of the buckets depends on.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// The RIP.
    pub address: Address,
    /// The rport.
    pub port: u16,
    /// Its weight.
    pub weight: u32,
    /// The last weight that it had and that was not 0, since it was added: quiescence does not move `mh`'s buckets.
    pub last_weight: u32,
}

impl Buckets {
    /// The buckets of a service whose members, newest first, are `seats`. `ipv6` is the family of the service's clients.
    ///
    /// Cost: a few hundred steps for `sh` and `dh`, some ten thousand for `mh`; it allocates, so never on the packet path.
    pub fn new(kind: SchedulerKind, ipv6: bool, seats: &[Seat]) -> Self {
        let places = 0_u32..;
        match kind {
            SchedulerKind::SourceHash { .. } => {
                // Each takes as many in a row as its weight says, at least one, over and over.
                let shares = places.zip(seats).map(|(place, seat)| (place, seat.weight.max(1)));
                Self(shares.cycle().flat_map(|(place, n)| (0..n).map(move |_| place)).take(BUCKETS).collect())
            }
            // One each, over and over, whatever the weights.
            SchedulerKind::DestinationHash => Self(places.zip(seats).map(|(place, _)| place).cycle().take(BUCKETS).collect()),
            SchedulerKind::Maglev { .. } => Self(maglev::fill(ipv6, seats).into()),
            _ => Self::default(),
        }
    }

    /// The place of the member that a bucket belongs to, if that takes new connections. Cost: one load, and the member's line.
    #[inline]
    pub(super) fn taking(&self, bucket: usize, members: &[Member]) -> Option<usize> {
        let place = *self.0.get(bucket)? as usize;
        members.get(place).filter(|member| takes_new(member)).map(|_| place)
    }

    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

/// An address in 32 bits: IPv6 addresses are folded by XOR of their four words, as in IPVS.
#[inline]
pub(super) fn folded(address: Address) -> u32 {
    address.as_v4().unwrap_or_else(|| (0..4).fold(0, |fold, word| fold ^ (address.0 >> (32 * word) & 0xffff_ffff) as u32))
}

/// Knuth's multiplicative hash, the highest eight bits (Linux: `hash_32`).
#[inline]
pub(super) const fn eight_bits(word: u32) -> u8 {
    (word.wrapping_mul(0x61c8_8647) >> 24) as u8
}
