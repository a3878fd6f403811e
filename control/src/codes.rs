//! The stable names of everything that can go wrong: in `type` of the API's answers, in brackets behind the command line's messages, and as
//! `code=` in the log when the director does not start.
//!
//! ipvsadm's personality says what ipvsadm says, to the byte: scripts read it, so it has no room for them.
//!
//! They are listed by `baton errors`, in baton(8), and under `/problems/NAME` of the API: all three from here.

macro_rules! codes {
    ($($name:ident $code:literal $status:literal $meaning:literal;)+) => {
        /// The name of a kind of error.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// All of them: the API's by HTTP status, then the command line's.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name: lower-case words with hyphens between them.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The HTTP status that it comes with; 0 where only the command line has it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// What it means, and what mends it.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }
        }
    };
}

codes! {
    Malformed "malformed" 400 "An id, a query, a header or the body cannot be read at all.";
    Unauthorized "unauthorized" 401 "Over TCP: nobody said who asks, or the token is none of this director's.";
    Forbidden "forbidden" 403 "Who asks may not do this; the answer names the role that may.";
    WebPage "web-page" 403 "Requests by web pages (with an Origin header) are refused.";
    NotFound "not-found" 404 "There is nothing at this path; /api/v1/openapi.json lists what there is.";
    NoSuchService "no-such-service" 404 "There is no virtual service with this id.";
    NoSuchRealServer "no-such-real-server" 404 "The virtual service has no real server with this id.";
    NoSuchVip "no-such-vip" 404 "No virtual service and no mark rule has this VIP.";
    NoDrain "no-drain" 404 "The real server is not being drained.";
    NotKept "revision-not-kept" 404 "The history does not have this revision; the answer lists those that it has.";
    MethodNotAllowed "method-not-allowed" 405 "The path is there, but not with this method; the Allow header lists those that it has.";
    SlowRequest "slow-request" 408 "The body did not arrive in time.";
    ServiceExists "service-exists" 409 "There is such a virtual service already; PUT replaces it.";
    RealServerExists "real-server-exists" 409 "The virtual service has such a real server already; PUT replaces it.";
    NeedsRestart "needs-restart" 409 "baton.toml differs in keys that are read at start only; nothing was changed. Restart the director, or undo those keys.";
    NotAsAsked "precondition-failed" 412 "The resource is not in the state that If-Match or If-None-Match asks for; nothing was changed. Read it again, and decide anew.";
    BodyTooLarge "body-too-large" 413 "The body is larger than 16 MiB.";
    Invalid "invalid" 422 "A rule is broken; nothing was changed. `errors` points at every faulty field.";
    FaultyFile "faulty-configuration" 422 "baton.toml has faults, all of which are named; nothing was changed.";
    TooManyRequests "too-many-requests" 429 "Over TCP: too many requests, or too many wrong tokens, from one address; wait some seconds.";
    NotStored "not-stored" 500 "The change is in force but not in the state file: a restart would lose it. It is tried again every 2 seconds.";
    HistoryUnread "history-unreadable" 500 "The history could not be read from the disk.";
    Metrics "metrics" 500 "The metrics could not be written.";
    Busy "busy" 503 "Nothing was changed: what it takes is not free at this moment. Try again.";
    TooManyStreams "too-many-streams" 503 "As many listen to events as may at once; try again when one has left.";
    NotLive "not-live" 503 "A worker does not turn.";
    NotReady "not-ready" 503 "Something is missing before the director does all that it should; the answer says what.";
    Timeout "timeout" 504 "A worker did not answer in time; a change is kept and reaches it once it takes commands again.";
    Unreachable "unreachable" 0 "Nobody answers where the director's API should be.";
    NoAnswer "no-answer" 0 "The director took the request and did not answer within a minute.";
    NotUnderstood "not-understood" 0 "The answer is none that this version of the command understands.";
    Usage "usage" 0 "The command line is wrong.";
    UnreadableFile "unreadable-file" 0 "A file that was named cannot be read.";
    CannotWrite "cannot-write" 0 "Output cannot be written.";
    CannotStart "cannot-start" 0 "The director or a command cannot start, or go on; the message names the cause and what mends it.";
    InUse "in-use" 0 "The director cannot start: another one, or another program, has the device, the socket or the address.";
    DpdkRefused "dpdk-refused" 0 "The director cannot start: a call of DPDK failed; the message says which, and what mends it.";
    StateUnusable "state-unusable" 0 "The director cannot start: the state file or its history cannot be read or written, or does not fit the ports.";
    NotImported "not-imported" 0 "Nothing was imported: a file cannot be read, or what it is written for cannot be told.";
    RealServerHost "real-server-host" 0 "`baton realserver`: this machine's interfaces or sysctls cannot be read or changed.";
    DrainCancelled "drain-cancelled" 0 "The drain that was waited for was cancelled, or its real server removed.";
    StreamBroken "stream-broken" 0 "The stream of events broke off; it is asked for again.";
    EventsMissing "events-missing" 0 "Events are not kept any more, or were another run's: what comes next does not follow on what came last.";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_name_of_its_own_with_a_meaning() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
            assert!(Code::ALL[..index].iter().all(|other| other.as_str() != code.as_str()), "{code} stands twice");
            assert!(code.meaning().ends_with('.'), "{code}");
            assert!(code.status() == 0 || (400..600).contains(&code.status()), "{code}");
        }
        let api: Vec<u16> = Code::ALL.iter().map(|code| code.status()).filter(|status| *status != 0).collect();
        assert!(api.is_sorted());
    }
}
