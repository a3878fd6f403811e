//! First fragments whose flow another worker may have.
//!
//! The device knows no ports of later fragments, so it brings all of a datagram to the worker that its addresses alone lead to.
//! Its flow's other packets come elsewhere. What is found elsewhere is noted in the directory, so that the next datagram of
//! that flow goes there at once.

use super::Fragments;
use crate::handover::HandOver;
use crate::icmp_related::is_of_service;
use crate::lanes::{Lanes, each};
use crate::rules::Rules;

impl Fragments {
    /// Stage: first fragments of services that have no entry here go to the next worker that may have it; when all were
    /// asked, they are left to be scheduled. Cost without fragments: one load a burst.
    #[inline]
    pub fn pass_on(&self, lanes: &mut Lanes, rules: &Rules, handover: &mut Option<HandOver>) {
        if !self.firsts.is_empty()
            && let Some(handover) = handover
        {
            self.ask_others(lanes, rules, handover);
        }
    }

    #[inline(never)]
    fn ask_others(&self, lanes: &mut Lanes, rules: &Rules, handover: &mut HandOver) {
        for &(lane, _) in &self.firsts {
            let bit = 1 << lane;
            let key = &lanes.packets[lane].key;
            // A packet before it in this very burst is about to get the entry.
            let begun = || each(lanes.missed & (bit - 1)).any(|before| lanes.packets[before].key == *key);
            if lanes.missed & bit == 0 || !is_of_service(key, rules) || begun() {
                continue;
            }
            let owner = handover.directory().owner(key);
            if let Some(fate) = handover.fragment_elsewhere(&mut lanes.journeys[lane], owner) {
                lanes.fates[lane] = fate;
                lanes.missed &= !bit;
            }
        }
    }
}
