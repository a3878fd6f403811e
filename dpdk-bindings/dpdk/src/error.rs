//! What can go wrong in DPDK, told apart by what mends it.

use std::ffi::CStr;
use std::fmt;

use nix::errno::Errno;

/// A DPDK or kernel call that failed: which call, its errno, what kind of trouble that is, and what would mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}{}", cause(*.errno), Hint(.hint.as_deref()))]
pub struct DpdkError {
    /// The function that failed.
    pub call: &'static str,
    /// Positive errno.
    pub errno: i32,
    /// The kind of trouble.
    pub kind: ErrorKind,
    /// What exactly is wrong and what mends it, if more is known than the errno.
    pub hint: Option<String>,
}

/// Troubles that a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The EAL was started in this process before; it starts once.
    AlreadyInitialised,
    /// No EAL runs in this process.
    NotInitialised,
    /// Another process runs DPDK with the same file prefix.
    OtherProcess,
    /// No, or not enough, free huge pages.
    NoHugepages,
    /// A core does not exist, or this process may not run on it.
    CoreNotAllowed,
    /// No such worker was configured.
    NoSuchWorker,
    /// The worker still runs an earlier function.
    WorkerBusy,
    /// No port has that name, or its device could not be probed.
    PortNotFound,
    /// Another [`crate::port::Port`] of this process holds the port.
    PortInUse,
    /// The device has fewer queues than asked for.
    NotEnoughQueues,
    /// The port cannot change while its queues exist.
    QueuesInUse,
    /// Another process holds the file.
    FileInUse,
    /// Not enough memory.
    OutOfMemory,
    /// The device cannot do this.
    Unsupported,
    /// An argument was refused.
    InvalidArgument,
    /// Anything else; the errno says what.
    Other,
}

/// The errno in words. DPDK leaves some of its failures to its own log.
fn cause(errno: i32) -> &'static str {
    if errno == 0 { "failed, as DPDK's messages above say" } else { Errno::from_raw(errno).desc() }
}

struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl DpdkError {
    /// An error of which only call and errno are known; the kind follows from the errno.
    pub(crate) fn from_errno(call: &'static str, errno: i32) -> Self {
        let kind = match Errno::from_raw(errno) {
            Errno::ENOMEM => ErrorKind::OutOfMemory,
            Errno::EINVAL | Errno::ENAMETOOLONG | Errno::EEXIST => ErrorKind::InvalidArgument,
            Errno::ENOTSUP | Errno::ENOSYS => ErrorKind::Unsupported,
            Errno::ENODEV => ErrorKind::PortNotFound,
            _ => ErrorKind::Other,
        };
        Self { call, errno, kind, hint: None }
    }

    /// The error of a call that answers with a negative errno.
    pub(crate) fn from_status(call: &'static str, status: i32) -> Self {
        Self::from_errno(call, status.saturating_neg())
    }

    /// The error of a call that leaves its errno in `rte_errno`.
    pub(crate) fn last(call: &'static str) -> Self {
        // SAFETY: reads a thread-local integer of DPDK; no preconditions.
        let errno = unsafe { dpdk_sys::baton_errno() };
        Self::from_errno(call, errno)
    }

    /// The error of a system call that just failed.
    pub(crate) fn last_system(call: &'static str) -> Self {
        Self::from_errno(call, Errno::last_raw())
    }

    /// An error of this crate's own making.
    pub(crate) fn refused(call: &'static str, kind: ErrorKind, hint: impl Into<String>) -> Self {
        let errno = match kind {
            ErrorKind::AlreadyInitialised => Errno::EALREADY,
            ErrorKind::NotInitialised => Errno::ENXIO,
            ErrorKind::NoHugepages | ErrorKind::OutOfMemory => Errno::ENOMEM,
            ErrorKind::PortNotFound => Errno::ENODEV,
            ErrorKind::OtherProcess | ErrorKind::PortInUse | ErrorKind::QueuesInUse | ErrorKind::WorkerBusy | ErrorKind::FileInUse => {
                Errno::EBUSY
            }
            ErrorKind::Unsupported => Errno::ENOTSUP,
            _ => Errno::EINVAL,
        };
        Self { call, errno: errno as i32, kind, hint: Some(hint.into()) }
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Turns a status of DPDK (negative errno on failure) into a result.
pub(crate) fn check(call: &'static str, status: i32) -> Result<i32, DpdkError> {
    if status < 0 { Err(DpdkError::from_status(call, status)) } else { Ok(status) }
}

/// A C string for DPDK, or the error that names the offending text.
pub(crate) fn c_string(call: &'static str, text: &str) -> Result<std::ffi::CString, DpdkError> {
    std::ffi::CString::new(text)
        .map_err(|_| DpdkError::refused(call, ErrorKind::InvalidArgument, format!("{text:?} contains a NUL character")))
}

/// Text of a fixed C character array, up to its NUL.
pub(crate) fn text(characters: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|c| c.to_ne_bytes()[0]).chain([0]).collect();
    CStr::from_bytes_until_nul(&bytes).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}
