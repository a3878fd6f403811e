//! `lblc` and `lblcr`: connections to one destination address stay with one real server, or with a few, until those have too many.
//!
//! For a service with a VIP there is one such address; the schedulers were made for services by mark, which take many.

mod store;

use crate::schedule::least_connections::{load, pick_weighted};
use crate::schedule::{Pick, takes_new};
use crate::service::{Member, ServerId};
use crate::tick::Tick;

pub(crate) use store::{Expirations, Localities, Owner};

/// Whether a member has more active connections than its weight says while any has fewer than half of its own.
#[inline]
fn is_crowded(member: &Member, members: &[Member]) -> bool {
    let half_empty = |m: &Member| m.reachable && u64::from(m.stats.active()) * 2 < u64::from(m.weight);
    member.stats.active() > member.weight && members.iter().any(half_empty)
}

/// `lblc`: the real server that the address had last; by `wlc` a new one when that is gone, quiescent or crowded.
///
/// As in IPVS the one that it had is not asked whether it is overloaded: thresholds hold for new ones only.
pub(super) fn pick(owner: Owner, pick: &Pick<'_>, memory: &mut Localities) -> Option<usize> {
    let members = pick.members;
    let known = memory.find(owner, pick.virtual_address, members, pick.revision, pick.now);
    let place = known.and_then(|id| memory.places(id).next()).and_then(|(_, place)| place);
    if let Some(place) = place
        && let Some(member) = members.get(place)
        && member.weight > 0
        && member.reachable
        && !is_crowded(member, members)
    {
        return Some(place);
    }
    let place = pick_weighted(members)?;
    let server = members.get(place)?.server;
    if let Some(id) = known.or_else(|| memory.add(owner, pick.virtual_address, false, pick.revision, pick.now)) {
        memory.replace(id, server, place, pick.now);
    }
    Some(place)
}

/// `lblcr`: by `wlc` one of the real servers that the address has; when none of them takes connections or the least busy one is
/// crowded, one of all, which is added to them. Of several that have not changed for a day, the busiest is taken out.
pub(super) fn pick_replicated(owner: Owner, pick: &Pick<'_>, memory: &mut Localities) -> Option<usize> {
    let members = pick.members;
    let known = memory.find(owner, pick.virtual_address, members, pick.revision, pick.now);
    if let Some(id) = known {
        let least = memory.places(id).filter_map(|(_, place)| place).fold(None, |least, place| less_busy(least, place, members));
        let (count, changed) = memory.count(id);
        let unchanged = changed.until(pick.now);
        if count > 1
            && unchanged > memory.expirations.lblcr.saturating_mul(Tick::PER_SECOND)
            && let Some(server) = busiest(memory.places(id), members)
        {
            memory.erase(id, server, pick.now);
        }
        if let Some(place) = least
            && !members.get(place).is_none_or(|member| is_crowded(member, members))
        {
            return Some(place);
        }
    }
    let place = pick_weighted(members)?;
    let server = members.get(place)?.server;
    if let Some(id) = known.or_else(|| memory.add(owner, pick.virtual_address, true, pick.revision, pick.now)) {
        memory.insert(id, server, place, pick.now);
    }
    Some(place)
}

/// The less busy, for its weight, of the best so far and of the member at `place`; the earlier one of equals.
fn less_busy(best: Option<usize>, place: usize, members: &[Member]) -> Option<usize> {
    let member = |place: usize| members.get(place).filter(|member| takes_new(member));
    let Some(new) = member(place) else { return best };
    let Some(old) = best.and_then(member) else { return Some(place) };
    let better = load(old).saturating_mul(new.weight.into()) > load(new).saturating_mul(old.weight.into());
    if better { Some(place) } else { best }
}

/// Whom a set loses: one that is no member any more, or else the busiest for its weight; the earlier one of equals.
fn busiest(places: impl Iterator<Item = (ServerId, Option<usize>)>, members: &[Member]) -> Option<ServerId> {
    let mut most: Option<&Member> = None;
    for (server, place) in places {
        let Some(member) = place.and_then(|place| members.get(place)) else { return Some(server) };
        let busier = |most: &Member| load(most).saturating_mul(member.weight.into()) < load(member).saturating_mul(most.weight.into());
        if member.weight > 0 && most.is_none_or(busier) {
            most = Some(member);
        }
    }
    most.map(|member| member.server)
}

#[cfg(test)]
mod tests;
