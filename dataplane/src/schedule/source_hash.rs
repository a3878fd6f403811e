//! `sh`: the client's address decides, through a table that the real servers fill by weight.

use crate::schedule::Pick;
use crate::schedule::buckets::{eight_bits, folded};

/// The member that the client's bucket belongs to. `port` (`sh-port`): the client's port counts too. `fallback` (`sh-fallback`): if
/// that member takes no new connections, the first that does among those of 256 further buckets, each found by an offset.
#[inline]
pub(super) fn pick(port: bool, fallback: bool, pick: &Pick<'_>) -> Option<usize> {
    let port = if port { u32::from(pick.client_port) } else { 0 };
    let home = eight_bits(folded(pick.client).wrapping_add(port));
    let taking = |bucket: u8| pick.buckets.taking(usize::from(bucket), pick.members);
    taking(home)
        .or_else(|| if fallback { (0..=u8::MAX).find_map(|offset| taking(home.wrapping_add(home.wrapping_add(offset)))) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::schedule::Buckets;
    use crate::schedule::test_members::{Hashed, member, members};
    use crate::service::{Member, SchedulerKind};
    use proptest::prelude::*;

    /// The hash by long division, and the table by handing out cards.
    fn naive(members: &[Member], client: u128, port: u16, fallback: bool) -> Option<usize> {
        let words = [client >> 96, client >> 64, client >> 32, client].map(|word| u64::try_from(word % (1 << 32)).unwrap());
        let folded = if words[..3] == [0, 0, 0xffff] { words[3] } else { words[0] ^ words[1] ^ words[2] ^ words[3] };
        let home = ((folded + u64::from(port)) % (1 << 32)) * 0x61c8_8647 % (1 << 32) / (1 << 24);
        let mut cards = Vec::new();
        while cards.len() < 256 && !members.is_empty() {
            for (place, member) in members.iter().enumerate() {
                cards.extend(vec![place; member.weight.max(1) as usize]);
            }
        }
        let owner = |bucket: u64| cards.get(usize::try_from(bucket % 256).unwrap()).copied().filter(|place| members[*place].weight > 0);
        owner(home).or_else(|| (0..256).filter(|_| fallback).find_map(|offset| owner(home + (home + offset) % 256)))
    }

    proptest! {
        #[test]
        fn picks_are_those_of_the_naive_table(
            weights in prop::collection::vec(0u32..6, 0..9),
            (client, v4, port) in (any::<u128>(), any::<bool>(), any::<u16>()),
            (use_port, fallback) in (any::<bool>(), any::<bool>()),
        ) {
            let client = if v4 { Address::v4(u32::try_from(client % (1 << 32)).unwrap()) } else { Address(client) };
            let list = members(&weights);
            let hashed = Hashed::new(SH, &list);
            let expected = naive(&list, client.0, if use_port { port } else { 0 }, fallback);
            prop_assert_eq!(pick(use_port, fallback, &hashed.pick(client, port)), expected);
        }
    }

    const SH: SchedulerKind = SchedulerKind::SourceHash { port: false, fallback: false };

    fn picks(fallback: bool, members: &[Member]) -> Vec<Option<usize>> {
        let hashed = Hashed::new(SH, members);
        (0..200).map(|n| pick(false, fallback, &hashed.pick(Address::v4(0xc633_6400 + n), 1000))).collect()
    }

    #[test]
    fn buckets_are_taken_in_a_row_by_weight_over_and_over() {
        let buckets = |list: &[Member]| Hashed::new(SH, list).buckets;
        assert_eq!(buckets(&members(&[2, 0, 1])).as_slice()[..9], [0, 0, 1, 2, 0, 0, 1, 2, 0]);
        assert_eq!(buckets(&members(&[1; 400])).as_slice()[255], 255);
        assert_eq!(buckets(&members(&[u32::MAX, 1])).as_slice()[255], 0);
        assert_eq!(buckets(&[]), Buckets::default());
    }

    #[test]
    fn client_without_a_taking_server_gets_none_unless_fallback_finds_another() {
        let list = members(&[1, 0]);
        let strict = picks(false, &list);
        assert!(strict.contains(&None) && strict.contains(&Some(0)) && !strict.contains(&Some(1)));
        assert!(picks(true, &list).iter().all(|p| *p == Some(0)));
        assert_eq!(picks(true, &[member(0, 0)])[0], None);
        assert_eq!(picks(true, &[])[0], None);
    }

    #[test]
    fn port_counts_only_with_sh_port() {
        let list = members(&[1, 1, 1]);
        let hashed = Hashed::new(SH, &list);
        let spread = |port| {
            let picks = (0..100).filter_map(|n| pick(port, false, &hashed.pick(Address::v4(7), n)));
            picks.collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!((spread(false), spread(true)), (1, 3));
    }
}
