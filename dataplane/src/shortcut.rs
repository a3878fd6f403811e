//! How a plain packet of an established connection is sent on, by the method of the connection, and what is asked for ahead of that.

use dpdk::mbuf::Mbuf;

use crate::connection::{ConnectionTable, EntryId};
use crate::established::Around;
#[cfg(doc)]
use crate::established::bit;
use crate::plain::Transport;
use crate::rules::Rules;
use crate::track::Tracker;
use crate::translate::plain::Translated;

/// How plain packets of established connections with one method are sent on. Nothing of a packet is changed that is not sent.
pub(crate) trait Shortcut {
    /// Whether there is anything that is to be asked for.
    const ASKS: bool;
    /// Asks for the index line of a packet; whether it most likely is an answer.
    #[inline(always)]
    fn seek<F: Translated>(table: &ConnectionTable, _: &F::Head, hash: u64, _: &Rules) -> bool {
        table.prefetch_bucket(hash);
        false
    }
    /// Asks for the entry that a packet with this hash most likely has; reads the line of the index.
    #[inline(always)]
    fn guess(table: &ConnectionTable, hash: u64, _answers: bool) -> EntryId {
        table.prefetch_entry(hash)
    }
    /// Asks for what [`send`](Self::send) reads beside the entry, the line of which has come.
    fn ask(tracker: &Tracker, frame: &Mbuf, hash: u64, guess: EntryId, rules: &Rules);
    /// Sends a packet on; gives the port. `None` if the next stages are to look at it, and `id` then is its entry, if it has one.
    fn send<F: Translated, T: Transport>(
        tracker: &mut Tracker,
        frame: &mut Mbuf,
        id: &mut EntryId,
        guessed: Guessed,
        around: &mut Around<'_>,
    ) -> Option<u16>;
}

/// What is known of a packet that is to be sent on, beside the entry that it most likely has.
#[derive(Clone, Copy)]
pub(crate) struct Guessed {
    /// The hash of its key.
    pub(crate) hash: u64,
    /// Whether it most likely answers the entry's connection.
    pub(crate) answers: bool,
    /// Connections of which packets are held, by [`bit`].
    pub(crate) held: u64,
    /// Whether no packet before it is left to stages that may take ids.
    pub(crate) alone: bool,
}

/// Direct routing, to few real servers, the ways to which stay in the cache, or to `MANY`.
pub(crate) struct Direct<const MANY: bool>;
/// Tunnels.
pub(crate) struct Tunnelled;
/// Masquerading, both directions.
pub(crate) struct Masqueraded;

impl<const MANY: bool> Shortcut for Direct<MANY> {
    const ASKS: bool = MANY;

    #[inline(always)]
    fn ask(tracker: &Tracker, _: &Mbuf, _: u64, guess: EntryId, rules: &Rules) {
        if let Some(entry) = tracker.connections.get(guess) {
            rules.ways.prefetch(entry.server());
        }
    }

    #[inline(always)]
    fn send<F: Translated, T: Transport>(
        tracker: &mut Tracker,
        frame: &mut Mbuf,
        id: &mut EntryId,
        Guessed { held, .. }: Guessed,
        around: &mut Around<'_>,
    ) -> Option<u16> {
        tracker.send::<F, T>(frame.data_mut(), *id, held, around.rules, around.now)
    }
}

impl Shortcut for Tunnelled {
    const ASKS: bool = true;

    #[inline(always)]
    fn ask(tracker: &Tracker, frame: &Mbuf, _: u64, guess: EntryId, rules: &Rules) {
        frame.prefetch_headroom();
        if let Some(entry) = tracker.connections.get(guess) {
            rules.ways.prefetch_detour(entry.server());
        }
    }

    #[inline(always)]
    fn send<F: Translated, T: Transport>(
        tracker: &mut Tracker,
        frame: &mut Mbuf,
        id: &mut EntryId,
        Guessed { held, alone, .. }: Guessed,
        around: &mut Around<'_>,
    ) -> Option<u16> {
        tracker.tunnel_on::<F, T>(frame, *id, held, alone, around)
    }
}

impl Shortcut for Masqueraded {
    const ASKS: bool = true;

    #[inline(always)]
    fn seek<F: Translated>(table: &ConnectionTable, head: &F::Head, hash: u64, rules: &Rules) -> bool {
        let answers = !rules.may_be_served(F::destination(head));
        if answers {
            table.prefetch_reply(hash);
        } else {
            table.prefetch_bucket(hash);
        }
        answers
    }

    #[inline(always)]
    fn guess(table: &ConnectionTable, hash: u64, answers: bool) -> EntryId {
        if answers { table.prefetch_answered(hash) } else { table.prefetch_either(hash) }
    }

    #[inline(always)]
    fn ask(tracker: &Tracker, _: &Mbuf, hash: u64, guess: EntryId, rules: &Rules) {
        match tracker.connections.get(guess) {
            Some(entry) => rules.ways.prefetch_detour(entry.server()),
            None => {
                tracker.connections.prefetch_answered(hash);
            }
        }
    }

    #[inline(always)]
    fn send<F: Translated, T: Transport>(
        tracker: &mut Tracker,
        frame: &mut Mbuf,
        id: &mut EntryId,
        Guessed { hash, answers, held, .. }: Guessed,
        around: &mut Around<'_>,
    ) -> Option<u16> {
        if !answers {
            if let Some(port) = tracker.masquerade_on::<F, T>(frame.data_mut(), *id, held, around) {
                return Some(port);
            }
        } else if tracker.connections.is_answered(*id, hash) {
            return tracker.answer_on::<F, T>(frame.data_mut(), *id, held, around);
        }
        tracker.send_elsewhere::<F, T>(frame.data_mut(), id, hash, held, around)
    }
}
