//! What clients' segments say of a real server that does not answer, or not well.

use crate::stats::ServerShare;
use crate::tcp::{self, State};

/// Counts a SYN that is repeated, and a reset of a connection that was not over; `old` is the connection's state before the segment.
///
/// Called where TCP states are looked at, which segments of established connections that change nothing never reach.
#[inline]
pub(crate) fn complain(share: &ServerShare, old: State, flags: u8) {
    if matches!(old, State::SynRecv | State::SynAck | State::Established) {
        match flags & (tcp::SYN | tcp::RST | tcp::ACK) {
            tcp::SYN if old != State::Established => share.repeats.increment(),
            flags if flags & tcp::RST != 0 => share.resets.increment(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_syns_and_resets_of_live_connections_count_and_nothing_else_does() {
        for (state, flags, counted) in [
            (State::SynRecv, tcp::SYN, (1, 0)),
            (State::SynAck, tcp::SYN, (1, 0)),
            (State::SynRecv, tcp::RST, (0, 1)),
            (State::Established, tcp::RST | tcp::ACK, (0, 1)),
            (State::None, tcp::SYN, (0, 0)),
            (State::Established, tcp::SYN, (0, 0)),
            (State::SynRecv, tcp::ACK, (0, 0)),
            (State::Established, tcp::FIN | tcp::ACK, (0, 0)),
            (State::FinWait, tcp::RST, (0, 0)),
            (State::TimeWait, tcp::SYN, (0, 0)),
        ] {
            let share = ServerShare::default();
            complain(&share, state, flags);
            assert_eq!((share.repeats.get(), share.resets.get()), counted, "{state:?} {flags:#x}");
        }
    }
}
