//! What can go wrong with the kernel beside us, with the words that mend it.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

/// Why the kernel's side of a port could not be set up, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An interface with the port's name is there already.
    #[error(
        "port {name}: the kernel has an interface named {name} already (another director, or a name taken twice): \
         stop the other director, remove it (ip link delete {name}), or give the port another name"
    )]
    NameTaken {
        /// The port's name.
        name: String,
    },
    /// The TAP device could not be made.
    #[error("port {name}: making the TAP device failed: {source}{}", mend_tap(source))]
    Tap {
        /// The port's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A request over netlink was refused.
    #[error("{interface}: {call} failed: {}{}", errno.desc(), mend_netlink(*errno))]
    Netlink {
        /// What was asked for, in words.
        call: String,
        /// The interface that it was for.
        interface: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The netlink socket could not be opened.
    #[error("opening a netlink socket failed: {0}; the kernel needs CONFIG_NET and a sandbox must allow AF_NETLINK")]
    Socket(io::Error),
    /// A file under `/proc/sys` could not be read or written.
    #[error("{path}: {source}{}", mend_sysctl(source))]
    Sysctl {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel interface behind a port does not exist.
    #[error("port {port}: the device's iface={device} is not an interface of this network namespace: see ip link")]
    NoSuchDevice {
        /// The port's name.
        port: String,
        /// The interface's name.
        device: String,
    },
    /// The kernel interface behind a port has addresses, so the kernel would answer beside the director.
    #[error(
        "port {port}: interface {device} has the addresses {} of the kernel's own; they belong into addresses of [[port]], where the \
         director answers for them: move them there and remove them from the interface (ip address flush dev {device})",
        list(addresses)
    )]
    DeviceHasAddresses {
        /// The port's name.
        port: String,
        /// The interface's name.
        device: String,
        /// Its addresses, link-local ones left out.
        addresses: Vec<IpAddr>,
    },
    /// `net.ipv4.conf.all.rp_filter` is 2, which overrules the strict check on the interface behind a port.
    #[error(
        "port {port}: net.ipv4.conf.all.rp_filter is 2, so the kernel would answer on {device} beside the director: \
         sysctl -w net.ipv4.conf.all.rp_filter=0 (the interfaces' own values stay in force)"
    )]
    LooseReversePath {
        /// The port's name.
        port: String,
        /// The interface's name.
        device: String,
    },
    /// A thread could not be started, or ended before it reported.
    #[error("starting the thread {name} failed: {source}")]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl KernelError {
    /// Whether the kernel answered with this number.
    pub(super) fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Netlink { errno, .. } if *errno == wanted)
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn mend_tap(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            "; CAP_NET_ADMIN is missing: run as root, or AmbientCapabilities=CAP_NET_ADMIN in the unit, or --cap-add NET_ADMIN for a container"
        }
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            "; /dev/net/tun is missing: modprobe tun, or --device /dev/net/tun for a container"
        }
        Some(Errno::EBUSY) => "; the name is in use by another program: stop it, or give the port another name",
        Some(Errno::EINVAL) => "; the name belongs to an interface that is no TAP, or is longer than 15 bytes: give the port another name",
        _ => "",
    }
}

fn mend_netlink(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => "; CAP_NET_ADMIN is missing: run as root, or AmbientCapabilities=CAP_NET_ADMIN in the unit",
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => "; a gateway must be inside a network of the port's addresses",
        Errno::ENOBUFS => {
            "; the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 (and net.ipv6.neigh.default.gc_thresh3) \
             above twice the number of real servers"
        }
        Errno::ENODEV => "; the interface is gone",
        _ => "",
    }
}

fn mend_sysctl(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS) => "; /proc/sys is read-only: in a container run with --privileged, or with systempaths=unconfined",
        Some(Errno::EPERM | Errno::EACCES) => "; run as root or with CAP_NET_ADMIN and a writable /proc/sys/net (ProtectKernelTunables=no)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named_with_its_mend() {
        let text = KernelError::Tap { name: "lan".into(), source: Errno::EPERM.into() }.to_string();
        assert!(text.contains("port lan") && text.contains("CAP_NET_ADMIN"), "{text}");
        let text =
            KernelError::Netlink { call: "adding address 10.0.0.1/24".into(), interface: "lan".into(), errno: Errno::EPERM }.to_string();
        assert!(text.starts_with("lan: adding address 10.0.0.1/24 failed: ") && text.contains("CAP_NET_ADMIN"), "{text}");
    }

    #[test]
    fn a_missing_tun_device_is_named_with_its_mend() {
        let text = KernelError::Tap { name: "lan".into(), source: Errno::ENOENT.into() }.to_string();
        assert!(text.contains("/dev/net/tun") && text.contains("modprobe tun"), "{text}");
    }

    #[test]
    fn addresses_on_the_device_are_listed() {
        let addresses = vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let text = KernelError::DeviceHasAddresses { port: "lan".into(), device: "d0".into(), addresses }.to_string();
        assert!(text.contains("10.0.0.1, 10.0.0.2") && text.contains("flush dev d0"), "{text}");
    }
}
