//! `sh`: the client's address decides, through a table that the real servers fill by weight.

use crate::address::Address;
use crate::schedule::{Pick, takes_new};
use crate::service::Member;

const BUCKETS: usize = 256;

/// Which member each bucket belongs to.
#[derive(Debug)]
pub struct SourceHash {
    /// `sh-port`: the client's port counts too.
    port: bool,
    /// `sh-fallback`: if the bucket's member takes no new connections, others are tried.
    fallback: bool,
    /// Places in the list of members; each member takes one bucket at least, so only the first 256 can have any.
    buckets: Box<[u8; BUCKETS]>,
}

/// The bucket for a client: Knuth's multiplicative hash of address plus port (IPv6 addresses folded by XOR first), eight bits of
/// it, moved on by `offset`.
#[inline]
fn bucket(client: Address, port: u16, offset: u8) -> u8 {
    let folded = client.as_v4().unwrap_or_else(|| (0..4).fold(0, |fold, word| fold ^ (client.0 >> (32 * word) & 0xffff_ffff) as u32));
    let hash = folded.wrapping_add(u32::from(port)).wrapping_mul(0x61c8_8647);
    ((hash >> 24) as u8).wrapping_add(offset)
}

impl SourceHash {
    pub(super) fn new(port: bool, fallback: bool, members: &[Member]) -> Self {
        let mut table = Self { port, fallback, buckets: Box::new([0; BUCKETS]) };
        table.members_changed(members);
        table
    }

    /// Fills the buckets: each member in list order takes as many in a row as its weight says, at least one, over and over.
    pub(super) fn members_changed(&mut self, members: &[Member]) {
        let shares = (0..=u8::MAX).zip(members).cycle().flat_map(|(place, m)| (0..m.weight.max(1)).map(move |_| place));
        self.buckets.iter_mut().zip(shares).for_each(|(bucket, place)| *bucket = place);
    }

    /// The member that the client's bucket belongs to or, with `sh-fallback`, the first that takes new connections among those
    /// of 256 further buckets, each found by an offset.
    #[inline]
    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        let port = if self.port { pick.client_port } else { 0 };
        let home = bucket(pick.client, port, 0);
        let owner = |bucket: u8| {
            let place = usize::from(self.buckets[usize::from(bucket)]);
            pick.members.get(place).filter(|m| takes_new(m)).map(|_| place)
        };
        let found = owner(home);
        if found.is_some() || !self.fallback {
            return found;
        }
        (0..=u8::MAX).find_map(|offset| owner(bucket(pick.client, port, home.wrapping_add(offset))))
    }
}
