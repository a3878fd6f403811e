//! What a director can know of a TCP connection: IPVS's state machine, its timeouts and what counts as active.
//!
//! The tables are those of Linux 6.1 (`ip_vs_proto_tcp.c`); they are facts that listings and timeouts depend on, so they
//! are kept to the letter even where RFC 9293 would say otherwise.

use crate::settings::Timeouts;

/// How far a connection has come, as `ipvsadm -lc` names it; the value is the one that entries and sync messages carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet; also the only state of UDP.
    #[default]
    None = 0,
    /// Both sides have spoken, as far as the director can tell.
    Established = 1,
    /// A SYN from the real server's side.
    SynSent = 2,
    /// A SYN from the client.
    SynRecv = 3,
    /// One side has ended.
    FinWait = 4,
    /// Both sides have ended.
    TimeWait = 5,
    /// Reset, or a segment that has none of SYN, FIN, ACK and RST.
    Close = 6,
    /// The client has ended, the real server may still send.
    CloseWait = 7,
    /// The last acknowledgement is awaited.
    LastAck = 8,
    /// Awaiting a connection.
    Listen = 9,
    /// A SYN that is held back while `secure_tcp` is on.
    SynAck = 10,
}

/// Which transitions apply: whose packet it is, whether the director sees both directions, and whether `secure_tcp` is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Table {
    /// From the client, with answers passing the director (masquerading).
    Input = 0,
    /// From the real server (masquerading).
    Output = 1,
    /// From the client, with answers that the director never sees (direct routing, tunnel).
    InputOnly = 2,
    /// [`Table::Input`] while `secure_tcp` is in force.
    SecureInput = 3,
    /// [`Table::Output`] while `secure_tcp` is in force.
    SecureOutput = 4,
    /// [`Table::InputOnly`] while `secure_tcp` is in force: a SYN waits in `SYNACK`.
    SecureInputOnly = 5,
}

impl Table {
    /// The table for a client's packets, where answers pass the director or do not (`no_output`), and `secure_tcp` is in force or not.
    #[inline]
    pub const fn of_client(no_output: bool, secure: bool) -> Self {
        match (no_output, secure) {
            (false, false) => Self::Input,
            (true, false) => Self::InputOnly,
            (false, true) => Self::SecureInput,
            (true, true) => Self::SecureInputOnly,
        }
    }
}

/// The FIN flag of a TCP header (RFC 9293, 3.1), as are the next three.
pub const FIN: u8 = 0x01;
/// The SYN flag.
pub const SYN: u8 = 0x02;
/// The RST flag.
pub const RST: u8 = 0x04;
/// The ACK flag.
pub const ACK: u8 = 0x10;

/// Seconds that an entry lives whose first packet has not yet set a state.
pub const FRESH_TIMEOUT: u32 = 3;

const STATES: usize = 11;
const NAMES: [&str; STATES] =
    ["NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK"];
const ALL: [State; STATES] = {
    use State::{Close, CloseWait, Established, FinWait, LastAck, Listen, None, SynAck, SynRecv, SynSent, TimeWait};
    [None, Established, SynSent, SynRecv, FinWait, TimeWait, Close, CloseWait, LastAck, Listen, SynAck]
};

/// Next states by [`Table`], event (SYN, FIN, ACK, RST) and present state, in the order of [`State`].
#[rustfmt::skip]
static NEXT: [[[State; STATES]; 4]; 6] = {
    use State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, SynAck as SA,
        SynRecv as SR, SynSent as SS, TimeWait as TW,
    };
    [
        //NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [[SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],  // input
         [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
         [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
         [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]],
        [[SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],  // output
         [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
         [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
         [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]],
        [[SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],  // input only
         [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
         [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
         [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]],
        [[SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],  // secure input
         [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
         [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
         [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]],
        [[SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],  // secure output
         [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
         [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
         [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]],
        [[SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],  // secure input only
         [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
         [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
         [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]],
    ]
};

/// Row of the tables for each combination of flags: RST before SYN before FIN before ACK; `NO_EVENT` for none of them.
static EVENTS: [u8; 32] = {
    let mut events = [NO_EVENT; 32];
    let mut flags = 0;
    while flags < 32 {
        events[flags] = if flags & RST as usize != 0 {
            3
        } else if flags & SYN as usize != 0 {
            0
        } else if flags & FIN as usize != 0 {
            1
        } else if flags & ACK as usize != 0 {
            2
        } else {
            NO_EVENT
        };
        flags += 1;
    }
    events
};
const NO_EVENT: u8 = 4;

/// The state after a segment with `flags` (the 14th byte of the TCP header). Cost: two table reads.
///
/// RST counts before SYN, FIN and ACK in that order; a segment with none of them closes the entry.
#[inline]
pub fn next(table: Table, state: State, flags: u8) -> State {
    let event = EVENTS[usize::from(flags & 31)];
    NEXT[table as usize].get(usize::from(event)).map_or(State::Close, |row| row[state as usize])
}

impl State {
    /// The state with this value; [`State::None`] for a value that is none.
    #[inline]
    pub const fn from_value(value: u8) -> Self {
        if (value as usize) < STATES { ALL[value as usize] } else { Self::None }
    }

    /// The name that `ipvsadm -lc` shows.
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Whether an entry in this state counts as active for listings and schedulers; all others count as inactive.
    #[inline]
    pub const fn counts_as_active(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::SynRecv | Self::SynAck)
    }

    /// Whether the handshake is not known to be complete.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::None | Self::SynSent | Self::SynRecv | Self::SynAck)
    }

    /// Seconds without a packet after which an entry in this state ends.
    #[inline]
    pub const fn timeout(self, timeouts: &Timeouts) -> u32 {
        match self {
            Self::None => 2,
            Self::Established => timeouts.tcp,
            Self::FinWait => timeouts.tcp_fin,
            Self::SynRecv | Self::CloseWait => 60,
            Self::SynSent | Self::TimeWait | Self::Listen | Self::SynAck => 120,
            Self::Close => 10,
            Self::LastAck => 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(table: Table, flags: &[u8]) -> State {
        flags.iter().fold(State::None, |state, f| next(table, state, *f))
    }

    #[test]
    fn direct_routing_goes_through_the_states_that_the_kernel_was_seen_in() {
        let only = Table::InputOnly;
        assert_eq!(walk(only, &[SYN]).name(), "SYN_RECV");
        assert_eq!(walk(only, &[SYN, ACK]).name(), "ESTABLISHED");
        assert_eq!(walk(only, &[SYN, ACK, FIN | ACK]).name(), "FIN_WAIT");
        assert_eq!(walk(only, &[SYN, ACK, FIN | ACK, ACK]).name(), "FIN_WAIT");
        assert_eq!(walk(only, &[SYN, ACK, RST]).name(), "CLOSE");
        assert_eq!(walk(only, &[SYN, RST]).name(), "SYN_RECV");
        assert_eq!(walk(only, &[SYN, ACK, FIN | ACK, SYN]).name(), "SYN_RECV");
        assert_eq!(walk(only, &[ACK]).name(), "ESTABLISHED");
    }

    #[test]
    fn masquerading_sees_both_sides_end() {
        let mut state = walk(Table::Input, &[SYN]);
        state = next(Table::Output, state, SYN | ACK);
        assert_eq!(state, State::SynRecv);
        state = next(Table::Input, state, ACK);
        assert_eq!(state, State::Established);
        state = next(Table::Input, state, FIN | ACK);
        assert_eq!(state, State::CloseWait);
        assert_eq!(next(Table::Output, state, FIN | ACK), State::TimeWait);
    }

    #[test]
    fn secure_tcp_waits_in_synack() {
        let secure = |state, flags| next(Table::SecureInputOnly, state, flags);
        assert_eq!(secure(State::None, SYN), State::SynAck);
        assert_eq!(secure(State::SynAck, ACK), State::Established);
        assert_eq!(next(Table::SecureInput, State::SynAck, ACK), State::SynAck);
    }

    #[test]
    fn reset_outranks_syn_outranks_fin_outranks_ack() {
        let from = |state, flags| next(Table::InputOnly, state, flags);
        assert_eq!(from(State::Established, RST | SYN | FIN | ACK), State::Close);
        assert_eq!(from(State::FinWait, SYN | FIN | ACK), State::SynRecv);
        assert_eq!(from(State::Established, FIN | ACK), State::FinWait);
    }

    #[test]
    fn segment_without_any_of_the_four_flags_closes() {
        for flags in [0, 0x08, 0x20, 0xc0, 0xe8] {
            assert_eq!(next(Table::InputOnly, State::Established, flags), State::Close);
        }
    }

    #[test]
    fn values_and_names_are_those_of_ipvs() {
        for (value, state) in (0u8..).zip(ALL) {
            assert_eq!(state as u8, value);
            assert_eq!(State::from_value(value), state);
        }
        assert_eq!(State::from_value(11), State::None);
        assert_eq!(State::SynAck.name(), "SYNACK");
        assert_eq!(State::CloseWait.name(), "CLOSE_WAIT");
    }

    #[test]
    fn timeouts_are_those_of_ipvs_and_set_changes_two_of_them() {
        let seconds = |timeouts| ALL.map(|s| s.timeout(&timeouts));
        assert_eq!(seconds(Timeouts::default()), [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120]);
        let set = Timeouts { tcp: 7, tcp_fin: 8, udp: 9 };
        assert_eq!(seconds(set), [2, 7, 120, 60, 8, 120, 10, 60, 30, 120, 120]);
    }

    #[test]
    fn half_open_states_count_as_active() {
        let active: Vec<_> = ALL.into_iter().filter(|s| s.counts_as_active()).collect();
        assert_eq!(active, [State::Established, State::SynSent, State::SynRecv, State::SynAck]);
        assert!(ALL.into_iter().filter(|s| s.is_half_open() && *s != State::None).all(State::counts_as_active));
        assert!(!State::Established.is_half_open());
    }
}
