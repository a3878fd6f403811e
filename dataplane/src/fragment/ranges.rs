//! Which parts of a datagram have come.

/// Parts that do not touch, at most: fragments out of order leave few gaps.
const MOST: usize = 8;

/// What a part is to those that came before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// All of it is new.
    New,
    /// All of it came before.
    Known,
    /// Some of it came before.
    Overlaps,
    /// There are too many gaps to tell.
    Unclear,
}

/// Parts of a datagram in units of eight bytes: up to eight, sorted, with gaps between them.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ranges {
    parts: [(u16, u16); MOST],
    count: u8,
    /// Where the datagram ends, once its last fragment has come.
    end: Option<u16>,
}

impl Ranges {
    /// What the part from byte `start` to byte `end` (exclusive) is; a new one is added. `more` tells whether others follow it.
    pub(super) fn add(&mut self, (start, end): (usize, usize), more: bool) -> Part {
        let unit = |bytes: usize| u16::try_from(bytes.div_ceil(8)).unwrap_or(u16::MAX);
        let (start, end) = (unit(start), unit(end));
        let n = usize::from(self.count);
        let parts = self.parts.get(..n).unwrap_or_default();
        for &(from, to) in parts {
            if start >= from && end <= to {
                return Part::Known;
            }
            if start < to && from < end {
                return Part::Overlaps;
            }
        }
        let at = parts.partition_point(|part| part.1 <= start);
        let joins_left = at > 0 && parts.get(at - 1).is_some_and(|part| part.1 == start);
        let joins_right = parts.get(at).is_some_and(|part| part.0 == end);
        match (joins_left, joins_right) {
            (true, true) => {
                self.parts[at - 1].1 = self.parts[at].1;
                self.parts.copy_within(at + 1..n, at);
                self.count -= 1;
            }
            (true, false) => self.parts[at - 1].1 = end,
            (false, true) => self.parts[at].0 = start,
            (false, false) if n == MOST => return Part::Unclear,
            (false, false) => {
                self.parts.copy_within(at..n, at + 1);
                self.parts[at] = (start, end);
                self.count += 1;
            }
        }
        if !more {
            self.end = Some(end);
        }
        Part::New
    }

    /// Whether all of the datagram has come.
    pub(super) fn is_complete(&self) -> bool {
        self.count == 1 && self.end.is_some_and(|end| self.parts[0] == (0, end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_told_apart_as_by_a_map_of_all_bytes(parts in prop::collection::vec((0_usize..40, 1_usize..6), 1..40)) {
            let mut ranges = Ranges::default();
            let mut map = [false; 48];
            for (start, length) in parts {
                let known = map[start..start + length].iter().filter(|unit| **unit).count();
                let wanted = if known == 0 { Part::New } else if known == length { Part::Known } else { Part::Overlaps };
                let found = ranges.add((start * 8, (start + length) * 8), true);
                // Two parts that touch became one, so that only the whole of it can be known.
                prop_assert!(found == wanted || found == Part::Unclear && known == 0, "{found:?}, not {wanted:?}");
                if found == Part::New {
                    map[start..start + length].fill(true);
                }
            }
            prop_assert!(!ranges.is_complete());
        }
    }

    #[test]
    fn a_datagram_is_complete_in_any_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut ranges = Ranges::default();
            for (n, part) in order.into_iter().enumerate() {
                assert_eq!(ranges.add((part * 16, part * 16 + if part == 2 { 3 } else { 16 }), part != 2), Part::New);
                assert_eq!(ranges.is_complete(), n == 2);
            }
        }
    }

    #[test]
    fn more_gaps_than_there_is_room_for_are_unclear() {
        let mut ranges = Ranges::default();
        for n in 0..8 {
            assert_eq!(ranges.add((n * 32, n * 32 + 8), true), Part::New);
        }
        assert_eq!(ranges.add((8 * 32, 8 * 32 + 8), true), Part::Unclear);
        assert_eq!(ranges.add((8, 32), true), Part::New, "one that closes a gap needs no room");
        assert_eq!(ranges.add((8 * 32, 8 * 32 + 8), true), Part::New);
    }
}
