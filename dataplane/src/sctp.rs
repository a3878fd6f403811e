//! What a director can know of an SCTP association: IPVS's state machine, its timeouts and what counts as active.
//!
//! The tables are those of Linux 6.1 (`ip_vs_proto_sctp.c`); they are facts that listings and timeouts depend on, so they are kept
//! to the letter. States are named as the real server is in them (RFC 9260 section 4).

use crate::tcp;

/// How far an association has come; the value is the one that entries and sync messages carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet.
    #[default]
    None = 0,
    /// The client's first INIT.
    Init1 = 1,
    /// The client's later INIT.
    Init = 2,
    /// The real server's INIT ACK.
    CookieSent = 3,
    /// The client's COOKIE ECHO.
    CookieReplied = 4,
    /// The real server's INIT.
    CookieWait = 5,
    /// The client's INIT ACK.
    Cookie = 6,
    /// The real server's COOKIE ECHO.
    CookieEchoed = 7,
    /// Both sides have spoken.
    Established = 8,
    /// The real server's SHUTDOWN.
    ShutdownSent = 9,
    /// The client's SHUTDOWN.
    ShutdownReceived = 10,
    /// The real server's SHUTDOWN ACK.
    ShutdownAckSent = 11,
    /// The real server answered INIT with ABORT.
    Rejected = 12,
    /// Ended.
    Closed = 13,
}

/// Which transitions apply: whose packet it is, and whether the director sees both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Table {
    /// From the client, with answers passing the director (masquerading).
    Input = 0,
    /// From the real server (masquerading).
    Output = 1,
    /// From the client, with answers that the director never sees (direct routing, tunnel).
    InputOnly = 2,
}

/// What a packet says, by its first chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Event {
    /// DATA, SACK, HEARTBEAT and every chunk that the others are not.
    Data = 0,
    /// INIT.
    Init = 1,
    /// INIT ACK.
    InitAck = 2,
    /// COOKIE ECHO.
    CookieEcho = 3,
    /// COOKIE ACK.
    CookieAck = 4,
    /// SHUTDOWN.
    Shutdown = 5,
    /// SHUTDOWN ACK.
    ShutdownAck = 6,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete = 7,
    /// ERROR.
    Error = 8,
    /// ABORT, also behind a COOKIE ECHO or COOKIE ACK.
    Abort = 9,
}

/// Bytes of the common header (RFC 9260 section 3.1).
pub const HEADER: usize = 12;
/// Bytes of a chunk's header: type, flags, length (RFC 9260 section 3.2).
const CHUNK_HEADER: usize = 4;

const STATES: usize = 14;
const EVENTS: usize = 10;
const NAMES: [&str; STATES] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];
const ALL: [State; STATES] = {
    use State::{
        Closed, Cookie, CookieEchoed, CookieReplied, CookieSent, CookieWait, Established, Init, Init1, None, Rejected, ShutdownAckSent,
        ShutdownReceived, ShutdownSent,
    };
    [
        None,
        Init1,
        Init,
        CookieSent,
        CookieReplied,
        CookieWait,
        Cookie,
        CookieEchoed,
        Established,
        ShutdownSent,
        ShutdownReceived,
        ShutdownAckSent,
        Rejected,
        Closed,
    ]
};
const EVENTS_BY_VALUE: [Event; EVENTS] = {
    use Event::{Abort, CookieAck, CookieEcho, Data, Error, Init, InitAck, Shutdown, ShutdownAck, ShutdownComplete};
    [Data, Init, InitAck, CookieEcho, CookieAck, Shutdown, ShutdownAck, ShutdownComplete, Error, Abort]
};

/// Next states by [`Table`], [`Event`] and present state, in the order of their values.
#[rustfmt::skip]
static NEXT: [[[State; STATES]; EVENTS]; 3] = {
    use State::{
        Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS, CookieWait as CW, Established as ES,
        Init as IN, Init1 as I1, Rejected as RJ, ShutdownAckSent as SA, ShutdownReceived as SR, ShutdownSent as SS,
    };
    [
        //NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
        [[ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // input: data
         [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],  // init
         [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],  // init ack
         [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // cookie echo
         [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],  // cookie ack
         [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],  // shutdown
         [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],  // shutdown ack
         [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],  // shutdown complete
         [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],  // error
         [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]], // abort
        [[ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // output: data
         [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],  // init
         [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // init ack
         [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],  // cookie echo
         [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],  // cookie ack
         [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],  // shutdown
         [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],  // shutdown ack
         [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // shutdown complete
         [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // error
         [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]], // abort
        [[ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL],  // input only: data
         [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN],  // init
         [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL],  // init ack
         [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL],  // cookie echo
         [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL],  // cookie ack
         [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],  // shutdown
         [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],  // shutdown ack
         [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL],  // shutdown complete
         [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],  // error
         [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]], // abort
    ]
};

/// The state after a packet. Cost: one table read.
#[inline]
pub fn next(table: Table, state: State, event: Event) -> State {
    NEXT[table as usize][event as usize][state as usize]
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

    /// Whether the association is not known to be set up.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        (self as u8) < Self::Established as u8
    }

    /// Seconds without a packet after which an entry in this state ends: the kernel's, which `--set` does not change.
    #[inline]
    pub const fn timeout(self) -> u32 {
        match self {
            Self::None => 2,
            Self::Init1 | Self::Rejected => 4,
            Self::Established => 900,
            _ => 61,
        }
    }
}

/// Ports, and what [`event`] and the rules for new connections go by, of a packet's transport part; `None` if it holds no whole
/// chunk header, as every packet must.
///
/// The last is the [`Event`]'s value in the high four bits and, as of a TCP segment, [`tcp::SYN`] for INIT and [`tcp::RST`] for ABORT.
pub fn read(l4: &[u8]) -> Option<(u16, u16, u8)> {
    const COOKIE_ECHO: u8 = 10;
    const COOKIE_ACK: u8 = 11;
    const INIT: u8 = 1;
    const ABORT: u8 = 6;
    let (header, chunks) = l4.split_first_chunk::<HEADER>()?;
    let [kind, _, length @ ..] = *chunks.first_chunk::<CHUNK_HEADER>()?;
    let event = match kind {
        INIT => Event::Init,
        2 => Event::InitAck,
        ABORT => Event::Abort,
        7 => Event::Shutdown,
        8 => Event::ShutdownAck,
        9 => Event::Error,
        COOKIE_ECHO | COOKIE_ACK => {
            let length = usize::from(u16::from_be_bytes(length));
            let behind = chunks.get(length.next_multiple_of(4)..).and_then(<[u8]>::first_chunk::<CHUNK_HEADER>);
            match behind.filter(|_| length >= CHUNK_HEADER) {
                Some([ABORT, ..]) => Event::Abort,
                _ if kind == COOKIE_ECHO => Event::CookieEcho,
                _ => Event::CookieAck,
            }
        }
        14 => Event::ShutdownComplete,
        _ => Event::Data,
    };
    let begins = if kind == INIT { tcp::SYN } else { 0 };
    let ends = if kind == ABORT { tcp::RST } else { 0 };
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Some((port(0), port(2), (event as u8) << 4 | begins | ends))
}

/// The event that [`read`] found.
#[inline]
pub fn event(flags: u8) -> Event {
    EVENTS_BY_VALUE.get(usize::from(flags >> 4)).copied().unwrap_or(Event::Data)
}

#[cfg(test)]
mod tests;
