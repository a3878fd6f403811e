//! TCP's states as IPVS's tables have them (Linux 6.1), kept as the text they are written down in.

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const COLUMNS: &str = "NO ES SS SR FW TW CL CW LA LI SA";
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

/// A SYN while `secure_tcp` is in force.
const SECURE_SYN: &str = "SA ES ES SR SA SA SA SA SA SA SA";

/// The state after a segment with these flags; one with none of the four closes.
pub fn next(state: State, flags: u8, secure: bool) -> State {
    let Some((_, row)) = INPUT_ONLY.iter().find(|(flag, _)| flags & flag != 0) else { return "CL" };
    let row = if secure && flags & (SYN | RST) == SYN { SECURE_SYN } else { row };
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
    matches!(state, "SS" | "SR" | "SA")
}
