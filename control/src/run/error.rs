//! Why the director does not start, and what mends it.

use dpdk::{DpdkError, ErrorKind};

use crate::codes::Code;

/// Why the director does not start: what is wrong, and what a user can do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}; to mend it: {mend}")]
pub struct StartError {
    /// What is wrong.
    pub what: String,
    /// What mends it.
    pub mend: String,
    /// Its stable name.
    pub code: Code,
}

impl StartError {
    pub(super) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into(), code: Code::CannotStart }
    }

    /// With a stable name that says more than that it cannot start.
    pub(super) fn coded(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// A call of DPDK failed while `doing` something.
    pub(super) fn dpdk(doing: &str, error: &DpdkError) -> Self {
        let mend = match error.kind {
            ErrorKind::NoHugepages => "make huge pages available (sysctl -w vm.nr_hugepages=512), or set eal.no_huge = true",
            ErrorKind::OutOfMemory => "raise eal.memory, or make more huge pages available (sysctl -w vm.nr_hugepages=1024)",
            ErrorKind::OtherProcess => "stop the other DPDK process, or give this one an eal.file_prefix of its own",
            ErrorKind::CoreNotAllowed => "choose other workers.cores and control.core",
            ErrorKind::PortNotFound => "check port.device; DPDK's own messages above say why it was not opened",
            ErrorKind::PortInUse => "name each device once",
            ErrorKind::NotEnoughQueues => "take fewer workers.cores, or a device with as many queues",
            ErrorKind::InvalidArgument => "check the arguments in port.device and eal.args; DPDK's own messages above say which it refused",
            _ => "DPDK's own messages above say more; eal.args = [\"--log-level=debug\"] makes it say everything",
        };
        Self::new(format!("{doing}: {error}"), mend).coded(Code::DpdkRefused)
    }
}
