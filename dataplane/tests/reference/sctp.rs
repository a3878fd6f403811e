//! SCTP's states as IPVS's tables have them (Linux 6.1).

/// What a packet says by its first chunk.
pub type Event = &'static str;

const COLUMNS: &str = "NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL";
/// From the client, when answers pass the director.
const INPUT: [(Event, &str); 10] = [
    ("data", "ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL"),
    ("init", "I1 IN IN CS CR CW CO CE ES SS SR SA IN IN"),
    ("init ack", "CW CW CW CS CR CO CO CE ES SS SR SA RJ CL"),
    ("cookie echo", "CR IN IN CR CR CW CO CE ES SS SR SA RJ CL"),
    ("cookie ack", "ES I1 IN CS CR CW CO ES ES SS SR SA RJ CL"),
    ("shutdown", "SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL"),
    ("shutdown ack", "CL IN IN CS CR CW CO CE ES CL SR CL RJ CL"),
    ("shutdown complete", "CL CL CL CS CR CW CO CE ES SS SR CL RJ CL"),
    ("error", "CL I1 IN CS CR CW CO CL ES SS SR SA RJ CL"),
    ("abort", "CL CL CL CL CL RJ CL CL CL CL CL CL CL CL"),
];
/// From the real server.
const OUTPUT: [(Event, &str); 10] = [
    ("data", "ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL"),
    ("init", "CW CW CW CW CW CW CW CW ES CW CW CW CW CW"),
    ("init ack", "CS CS CS CS CR CW CO CE ES SS SR SA RJ CL"),
    ("cookie echo", "CE CE CE CE CE CE CE CE ES SS SR SA RJ CL"),
    ("cookie ack", "ES ES ES ES ES ES ES ES ES SS SR SA RJ CL"),
    ("shutdown", "SS SS SS SS SS SS SS SS SS SS SR SA RJ CL"),
    ("shutdown ack", "SA SA SA SA SA CW CO CE ES SA SA SA RJ CL"),
    ("shutdown complete", "CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL"),
    ("error", "CL CL CL CL CL CW CO CE ES SS SR SA RJ CL"),
    ("abort", "CL RJ CL CL CL CL CL CL CL CL CL CL CL CL"),
];
/// From the client, when the director never sees an answer.
const INPUT_ONLY: [(Event, &str); 10] = [
    ("data", "ES I1 IN CS CR ES CO CE ES SS SR SA RJ CL"),
    ("init", "I1 IN IN IN IN IN CO CE ES SS SR SA IN IN"),
    ("init ack", "CE CE CE CE CE CE CO CE ES SS SR SA RJ CL"),
    ("cookie echo", "ES ES ES ES ES ES CO CE ES SS SR SA RJ CL"),
    ("cookie ack", "ES I1 IN ES ES CW ES ES ES SS SR SA RJ CL"),
    ("shutdown", "SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL"),
    ("shutdown ack", "CL IN IN CS CR CW CO CE CL CL SR CL RJ CL"),
    ("shutdown complete", "CL CL CL CL CL CW CO CE ES SS CL CL RJ CL"),
    ("error", "CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL"),
    ("abort", "CL CL CL CL CL RJ CL CL CL CL CL CL CL CL"),
];

/// Short name, the name that listings show, and seconds.
const STATES: [(&str, &str, u32); 14] = [
    ("NO", "NONE", 2),
    ("I1", "INIT1", 4),
    ("IN", "INIT", 61),
    ("CS", "C-SENT", 61),
    ("CR", "C-REPLIED", 61),
    ("CW", "C-WAIT", 61),
    ("CO", "COOKIE", 61),
    ("CE", "C-ECHOED", 61),
    ("ES", "ESTABLISHED", 900),
    ("SS", "S-SENT", 61),
    ("SR", "S-RECEIVED", 61),
    ("SA", "S-ACK-SENT", 61),
    ("RJ", "REJECTED", 4),
    ("CL", "CLOSED", 61),
];

fn chunk(kind: u8) -> Event {
    match kind {
        1 => "init",
        2 => "init ack",
        6 => "abort",
        7 => "shutdown",
        8 => "shutdown ack",
        9 => "error",
        10 => "cookie echo",
        11 => "cookie ack",
        14 => "shutdown complete",
        _ => "data",
    }
}

/// What a whole packet says, and the type of its first chunk; `None` if it holds no chunk's header.
pub fn read(packet: &[u8]) -> Option<(Event, u8)> {
    let chunks = packet.get(12..).filter(|chunks| chunks.len() >= 4)?;
    let (kind, length) = (chunks[0], usize::from(super::wire::be16(chunks, 2)));
    // An ABORT may hide behind a cookie.
    let behind = chunks.get(length.div_ceil(4) * 4..).filter(|behind| length >= 4 && behind.len() >= 4);
    if matches!(kind, 10 | 11) && behind.is_some_and(|behind| behind[0] == 6) {
        return Some(("abort", kind));
    }
    Some((chunk(kind), kind))
}

/// The state after a packet, by a table ("input", "output", "input only").
pub fn next(table: &str, state: &'static str, event: Event) -> &'static str {
    let rows = match table {
        "input" => INPUT,
        "output" => OUTPUT,
        _ => INPUT_ONLY,
    };
    let (_, row) = rows.into_iter().find(|(name, _)| *name == event).expect("an event");
    let column = COLUMNS.split(' ').position(|name| name == state).expect("a state");
    row.split(' ').nth(column).expect("as many as there are states")
}

fn facts(state: &str) -> &'static (&'static str, &'static str, u32) {
    STATES.iter().find(|(short, ..)| *short == state).expect("a state")
}

pub fn name(state: &str) -> &'static str {
    facts(state).1
}

pub fn seconds(state: &str) -> u32 {
    facts(state).2
}

pub fn is_half_open(state: &str) -> bool {
    STATES.iter().position(|(short, ..)| *short == state) < STATES.iter().position(|(short, ..)| *short == "ES")
}
