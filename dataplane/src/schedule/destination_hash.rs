//! `dh`: the VIP decides, through a table that the real servers fill in turn, whatever their weights.

use crate::schedule::Pick;
use crate::schedule::buckets::{eight_bits, folded};

/// The member that the VIP's bucket belongs to, if it takes new connections; nobody stands in for it.
#[inline]
pub(super) fn pick(pick: &Pick<'_>) -> Option<usize> {
    pick.buckets.taking(usize::from(eight_bits(folded(pick.virtual_address))), pick.members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::schedule::test_members::{Hashed, members, unreachable};
    use crate::service::SchedulerKind::DestinationHash;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn picks_are_those_of_the_naive_table(weights in prop::collection::vec(0u32..3, 1..300), vip in any::<u32>()) {
            let list = members(&weights);
            let bucket = u64::from(vip) * 0x61c8_8647 % (1 << 32) / (1 << 24);
            let owner = usize::try_from(bucket).unwrap() % list.len();
            let got = super::pick(&Pick { virtual_address: Address::v4(vip), ..Hashed::new(DestinationHash, &list).pick(Address::v4(7), 1) });
            prop_assert_eq!(got, Some(owner).filter(|place| weights[*place] > 0));
        }
    }

    fn picks(hashed: &Hashed<'_>) -> Vec<Option<usize>> {
        (0..1000).map(|n| super::pick(&Pick { virtual_address: Address::v4(0x0a0a_0000 + n), ..hashed.pick(Address::v4(7), 1) })).collect()
    }

    #[test]
    fn vips_are_spread_evenly_whatever_the_weights() {
        let list = members(&[1, 9]);
        let hashed = Hashed::new(DestinationHash, &list);
        assert_eq!(hashed.buckets.as_slice()[..5], [0, 1, 0, 1, 0]);
        let heavy = picks(&hashed).iter().filter(|p| **p == Some(1)).count();
        assert!((400..600).contains(&heavy), "{heavy}");
    }

    #[test]
    fn client_does_not_count() {
        let list = members(&[1, 1, 1]);
        let hashed = Hashed::new(DestinationHash, &list);
        let first = super::pick(&hashed.pick(Address::v4(1), 1));
        assert!((2..200).all(|n| super::pick(&hashed.pick(Address::v4(n.into()), n)) == first));
    }

    #[test]
    fn nobody_stands_in_for_one_that_takes_no_connections() {
        let list = [members(&[0, 1]), vec![unreachable(2, 1)]].concat();
        let got = picks(&Hashed::new(DestinationHash, &list));
        assert!(got.contains(&None) && got.contains(&Some(1)) && !got.contains(&Some(0)) && !got.contains(&Some(2)));
        assert!(picks(&Hashed::new(DestinationHash, &[])).iter().all(Option::is_none));
    }
}
