//! SCTP's states as IPVS's table for the client's packets alone has them (Linux 6.1), kept as the text it is written down in.

use super::tcp::{RST, SYN};

const COLUMNS: &str = "sNO sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL";
/// By the first chunk's type; whatever stands not here is as DATA.
const ROWS: [(u8, &str); 10] = [
    (0, "sES sI1 sIN sCS sCR sES sCO sCE sES sSS sSR sSA sRJ sCL"),
    (1, "sI1 sIN sIN sIN sIN sIN sCO sCE sES sSS sSR sSA sIN sIN"),
    (2, "sCE sCE sCE sCE sCE sCE sCO sCE sES sSS sSR sSA sRJ sCL"),
    (6, "sCL sCL sCL sCL sCL sRJ sCL sCL sCL sCL sCL sCL sCL sCL"),
    (7, "sSR sI1 sIN sCS sCR sCW sCO sCE sSR sSS sSR sSA sRJ sCL"),
    (8, "sCL sIN sIN sCS sCR sCW sCO sCE sCL sCL sSR sCL sRJ sCL"),
    (9, "sCL sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL"),
    (10, "sES sES sES sES sES sES sCO sCE sES sSS sSR sSA sRJ sCL"),
    (11, "sES sI1 sIN sES sES sCW sES sES sES sSS sSR sSA sRJ sCL"),
    (14, "sCL sCL sCL sCL sCL sCW sCO sCE sES sSS sCL sCL sRJ sCL"),
];

/// Short name, the name that listings show, seconds.
const STATES: [(&str, &str, u32); 14] = [
    ("sNO", "NONE", 2),
    ("sI1", "INIT1", 4),
    ("sIN", "INIT", 61),
    ("sCS", "C-SENT", 61),
    ("sCR", "C-REPLIED", 61),
    ("sCW", "C-WAIT", 61),
    ("sCO", "COOKIE", 61),
    ("sCE", "C-ECHOED", 61),
    ("sES", "ESTABLISHED", 900),
    ("sSS", "S-SENT", 61),
    ("sSR", "S-RECEIVED", 61),
    ("sSA", "S-ACK-SENT", 61),
    ("sRJ", "REJECTED", 4),
    ("sCL", "CLOSED", 61),
];

pub type State = &'static str;

/// The type of the chunk that counts: the first, or an ABORT behind a cookie.
pub fn telling(message: &[u8]) -> u8 {
    let first = message[12];
    let length = usize::from(super::wire::be16(message, 14));
    let behind = 12 + length.div_ceil(4) * 4;
    if matches!(first, 10 | 11) && length >= 4 && message.len() >= behind + 4 && message[behind] == 6 { 6 } else { first }
}

/// What stands for TCP's flags: INIT begins as a SYN does, ABORT ends as RST does.
pub fn flags(first: u8) -> u8 {
    match first {
        1 => SYN,
        6 => RST,
        _ => 0,
    }
}

pub fn next(state: State, chunk: u8) -> State {
    let row = ROWS.iter().find(|(kind, _)| *kind == chunk).unwrap_or(&ROWS[0]).1;
    let column = COLUMNS.split(' ').position(|name| name == state).expect("a state");
    row.split(' ').nth(column).expect("as many as there are states")
}

fn facts(state: State) -> &'static (&'static str, &'static str, u32) {
    STATES.iter().find(|(short, ..)| *short == state).expect("a state")
}

pub fn name(state: State) -> &'static str {
    facts(state).1
}

pub fn seconds(state: State) -> u32 {
    facts(state).2
}

/// All before it is established.
pub fn is_half_open(state: State) -> bool {
    STATES.iter().take_while(|(short, ..)| *short != "sES").any(|(short, ..)| *short == state)
}
