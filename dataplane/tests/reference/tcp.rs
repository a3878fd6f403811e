//! TCP's states as IPVS's tables have them (Linux 6.1), kept as the text they are written down in.

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const COLUMNS: &str = "NO ES SS SR FW TW CL CW LA LI SA";
/// From the client, when answers pass the director.
const INPUT: [(u8, &str); 4] = [
    (RST, "CL CL CL SR CL CL CL CL LA LI SR"),
    (SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
    (FIN, "CL CW SS TW TW TW CL CW LA LI TW"),
    (ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
];
/// From the real server.
const OUTPUT: [(u8, &str); 4] = [
    (RST, "CL CL SS CL CL TW CL CL CL CL CL"),
    (SYN, "SS ES SS SR SS SS SS SS SS LI SR"),
    (FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
    (ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
];
/// From the client, when the director never sees an answer.
const INPUT_ONLY: [(u8, &str); 4] = [
    (RST, "CL CL CL SR CL CL CL CL LA LI CL"),
    (SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
    (FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
    (ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
];

/// Short name, the name that listings show, seconds, and whether it counts as active.
const STATES: [(&str, &str, u32, bool); 11] = [
    ("NO", "NONE", 2, false),
    ("ES", "ESTABLISHED", 900, true),
    ("SS", "SYN_SENT", 120, true),
    ("SR", "SYN_RECV", 60, true),
    ("FW", "FIN_WAIT", 120, false),
    ("TW", "TIME_WAIT", 120, false),
    ("CL", "CLOSE", 10, false),
    ("CW", "CLOSE_WAIT", 60, false),
    ("LA", "LAST_ACK", 30, false),
    ("LI", "LISTEN", 120, false),
    ("SA", "SYNACK", 120, true),
];

pub type State = &'static str;

/// What `secure_tcp` changes: the table, the flag, and the row.
const SECURE: [(&str, u8, &str); 6] = [
    ("input", RST, "CL CL CL SR CL CL CL CL LA LI CL"),
    ("input", SYN, "SR ES ES SR SR SR SR SR SR SR SA"),
    ("input", FIN, "CL CW SS TW TW TW CL CW LA LI SA"),
    ("input", ACK, "ES ES SS SR FW TW CL CW CL LI SA"),
    ("output", SYN, "SS ES SS SA SS SS SS SS SS LI SA"),
    ("input only", SYN, "SA ES ES SR SA SA SA SA SA SA SA"),
];

/// The state after a segment with these flags, by a table ("input", "output", "input only"); one with none of the four closes.
pub fn next(table: &str, state: State, flags: u8, secure: bool) -> State {
    let rows = match table {
        "input" => INPUT,
        "output" => OUTPUT,
        _ => INPUT_ONLY,
    };
    let Some((flag, row)) = rows.into_iter().find(|(flag, _)| flags & flag != 0) else { return "CL" };
    let changed = SECURE.into_iter().find(|(of, with, _)| secure && (*of, *with) == (table, flag)).map(|(.., row)| row);
    let row = changed.unwrap_or(row);
    let column = COLUMNS.split(' ').position(|name| name == state).expect("a state");
    row.split(' ').nth(column).expect("as many as there are states")
}

fn facts(state: State) -> &'static (&'static str, &'static str, u32, bool) {
    STATES.iter().find(|(short, ..)| *short == state).expect("a state")
}

pub fn name(state: State) -> &'static str {
    facts(state).1
}

/// Seconds, with what `--set` changes put in.
pub fn seconds(state: State, timeouts: &dataplane::settings::Timeouts) -> u32 {
    match state {
        "ES" => timeouts.tcp,
        "FW" => timeouts.tcp_fin,
        _ => facts(state).2,
    }
}

pub fn is_active(state: State) -> bool {
    facts(state).3
}

/// The states in which the handshake is not known to be complete.
pub fn is_half_open(state: State) -> bool {
    matches!(state, "NO" | "SS" | "SR" | "SA")
}
