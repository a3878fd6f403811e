//! What can be seen to fail before DPDK is started: DPDK's own messages name calls, these name causes.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::unistd::{AccessFlags, access};

use super::doctor::machine::Machine;
use super::error::StartError;
use super::sizing::{self, Room};
use super::{cpus, pci, plan};
use crate::codes::Code;
use crate::config::{Config, Device, Port};

/// Bits of capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// Refuses what cannot work on this machine, before anything is touched.
///
/// # Errors
/// The first cause that was found, with what mends it.
pub(super) fn check(config: &Config, cpus: &[u32]) -> Result<(), StartError> {
    all(config, cpus).into_iter().try_for_each(|(_, found)| found)
}

/// Everything that [`check`] looks at, in its order, each with what it is about.
pub(super) fn all(config: &Config, cpus: &[u32]) -> Vec<(&'static str, Result<(), StartError>)> {
    let entrance = &config.control.entrance;
    let open = |key, address: Option<SocketAddr>| address.map_or(Ok(()), |address| listen(key, address, |ip| is_own(ip, config)));
    let mut all = vec![
        ("cores", cpus::fault(config, cpus).map_or(Ok(()), Err)),
        ("permissions", capabilities(config, &effective_capabilities())),
        ("socket", socket(&entrance.socket)),
        ("API", open("control.listen", entrance.listen)),
        ("metrics", open("control.metrics_listen", entrance.metrics)),
    ];
    for port in &config.ports {
        all.extend(port.devices().iter().map(|of| ("device", device(port, of))));
        all.push(("interface", tap_name(&port.name)));
    }
    all.extend(config.vlans.iter().map(|vlan| ("interface", tap_name(&vlan.name))));
    all.push(("tun", tun_device(Path::new("/dev/net/tun"))));
    let room = Room { huge: dpdk::eal::free_hugepages_mb(), other: Machine::new(Path::new("/")).memory_mb("MemAvailable") };
    all.push(("memory", memory(config, room.huge)));
    all.push(("memory", sizing::fits(config, room)));
    all
}

/// The capabilities that this process has in force, as in the line `CapEff` of proc(5); all when the kernel does not say.
fn effective_capabilities() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.map_or_else(|| "ffffffffffffffff".to_owned(), |hex| hex.trim().to_owned())
}

fn capabilities(config: &Config, effective: &str) -> Result<(), StartError> {
    let held = u64::from_str_radix(effective, 16).unwrap_or(u64::MAX);
    let packet_sockets = config.ports.iter().flat_map(Port::devices).any(|device| device.kernel_interface().is_some());
    let needed = [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN", "to make the kernel's interface beside each port", true),
        (CAP_NET_RAW, "CAP_NET_RAW", "to take frames from a kernel interface", packet_sockets),
    ];
    for (bit, name, why, wanted) in needed {
        if wanted && held & (1 << bit) == 0 {
            return Err(StartError::new(
                format!("the permission {name} is missing, which is needed {why}"),
                "start as root, or let systemd give it (AmbientCapabilities= of baton.service), or Docker (--cap-add, without no-new-privileges)",
            ));
        }
    }
    Ok(())
}

/// Refuses a socket on which somebody answers, and a path that is something else than a socket.
fn socket(path: &Path) -> Result<(), StartError> {
    let elsewhere = "stop it, or give this one a control.socket of its own";
    if let Ok(stream) = UnixStream::connect(path) {
        let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
        let holder = peer.map_or_else(|_| "another process".to_owned(), |peer| format!("another director (pid {})", peer.pid()));
        return Err(StartError::new(format!("{holder} listens on {}", path.display()), elsewhere).coded(Code::InUse));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(StartError::new(format!("{} is there and is not a socket", path.display()), "move it away, or give another control.socket"))
        }
        _ => Ok(()),
    }
}

fn listen(key: &str, address: SocketAddr, own: impl Fn(IpAddr) -> bool) -> Result<(), StartError> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        // The addresses of the ports are the kernel's once there are ports.
        Err(why) if why.kind() == std::io::ErrorKind::AddrNotAvailable && own(address.ip()) => Ok(()),
        Err(why) => Err(StartError::new(
            format!("cannot listen on {address}: {why}"),
            format!("give another {key}; `ss -ltnp 'sport = {}'` shows who listens there", address.port()),
        )
        .coded(Code::InUse)),
    }
}

fn is_own(address: IpAddr, config: &Config) -> bool {
    let of_ports = config.ports.iter().flat_map(|port| &port.addresses);
    of_ports.chain(config.vlans.iter().flat_map(|vlan| &vlan.addresses)).any(|network| network.addr() == address)
}

fn device(port: &Port, device: &Device) -> Result<(), StartError> {
    if let Device::Pci(address) = device {
        let bus = Path::new("/sys/bus/pci");
        pci::check(&port.name, address, bus)?;
        return pci::permitted(&port.name, address, bus, |file| access(file, AccessFlags::R_OK | AccessFlags::W_OK));
    }
    let Some(interface) = device.kernel_interface() else { return Ok(()) };
    if if_nametoindex(interface) == Err(Errno::ENODEV) {
        return Err(StartError::new(
            format!("port '{}': there is no network interface '{interface}' (device {})", port.name, device),
            format!("name another in iface=; here are {}", interfaces()),
        ));
    }
    Ok(())
}

/// The kernel's network interfaces, as a list to choose from.
fn interfaces() -> String {
    let names = nix::net::if_::if_nameindex().map(|list| list.iter().map(|i| i.name().to_string_lossy().into_owned()).collect::<Vec<_>>());
    match names {
        Ok(names) if !names.is_empty() => names.join(", "),
        _ => "none".to_owned(),
    }
}

fn tap_name(name: &str) -> Result<(), StartError> {
    if if_nametoindex(name).is_err() {
        return Ok(());
    }
    Err(StartError::new(
        format!("port '{name}': the kernel has a network interface of this name already, so the port's own cannot be made"),
        format!("give the port another name, or remove that interface if it was left behind (ip link delete {name})"),
    ))
}

fn tun_device(path: &Path) -> Result<(), StartError> {
    let failed = |why: String| {
        StartError::new(
            format!("{} {why}, so the kernel's interface beside a port cannot be made", path.display()),
            "load the module (modprobe tun); in a container pass the device (docker run --device /dev/net/tun)",
        )
    };
    match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(why) => Err(failed(format!("cannot be opened ({why})"))),
    }
}

fn memory(config: &Config, free: u64) -> Result<(), StartError> {
    let needed = plan::memory(config);
    if let Some(given) = config.eal.memory
        && given.mebibytes() < needed
    {
        return Err(StartError::new(
            format!("eal.memory = \"{given}\" is less than the {needed} MiB that ports, workers and packet buffers need"),
            format!("give \"{needed}M\" or more, or leave it out"),
        ));
    }
    let wanted = u64::from(config.eal.memory.map_or(needed, crate::config::ByteSize::mebibytes));
    if config.eal.no_huge || free >= wanted {
        return Ok(());
    }
    let without = if config.ports.iter().flat_map(Port::devices).any(|device| matches!(device, Device::Pci(_))) {
        "eal.no_huge = true would do only where an IOMMU translates for the NIC, and slowly"
    } else {
        "or set eal.no_huge = true, which does for these devices"
    };
    let what = match free {
        0 => format!("there are no free huge pages, and {wanted} MiB are needed"),
        _ => format!("there are {free} MiB of free huge pages, and {wanted} MiB are needed"),
    };
    // Pages of 2 MiB, with some for connection tables; what is free already stays.
    let pages = (wanted.div_ceil(2) + 64).next_multiple_of(64);
    Err(StartError::new(
        what,
        format!("sysctl -w vm.nr_hugepages={pages} (2 MiB each; /usr/share/doc/baton/examples/baton-sysctl.conf keeps it); {without}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("[[port]]\nname = \"lan\"\ndevice = {text}");
        crate::config::parse(&text, Path::new("baton.toml"), &[0, 1]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    #[test]
    fn missing_huge_pages_are_named_with_the_command_and_whether_normal_pages_do() {
        let refused = memory(&config("\"net_af_packet0,iface=d0\""), 0).unwrap_err();
        assert_eq!(refused.what, "there are no free huge pages, and 83 MiB are needed");
        assert!(refused.mend.starts_with("sysctl -w vm.nr_hugepages=128 "), "{refused}");
        assert!(refused.mend.ends_with("or set eal.no_huge = true, which does for these devices"), "{refused}");
        let refused = memory(&config("\"03:00.0\""), 20).unwrap_err();
        assert!(refused.what.starts_with("there are 20 MiB of free huge pages") && refused.mend.contains("IOMMU"), "{refused}");
        assert_eq!(memory(&config("\"03:00.0\""), 1024), Ok(()));
        assert_eq!(memory(&config("\"net_null0\"\n[eal]\nno_huge = true\n"), 0), Ok(()));
    }

    #[test]
    fn memory_that_is_too_small_is_refused_with_what_is_needed() {
        let refused = memory(&config("\"net_null0\"\n[eal]\nno_huge = true\nmemory = \"64M\"\n"), 0).unwrap_err();
        assert!(refused.what.starts_with("eal.memory = \"64M\" is less than the 83 MiB"), "{refused}");
    }

    #[test]
    fn missing_permission_is_named() {
        let packet = config("\"net_af_packet0,iface=d0\"");
        assert!(capabilities(&packet, "0000000000000000").unwrap_err().what.contains("CAP_NET_ADMIN"));
        assert!(capabilities(&packet, "0000000000001000").unwrap_err().what.contains("CAP_NET_RAW"));
        assert_eq!(capabilities(&packet, "0000000000003000"), Ok(()));
        assert_eq!(capabilities(&config("\"03:00.0\""), "0000000000001000"), Ok(()));
    }

    #[test]
    fn socket_in_use_is_refused_and_a_stale_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baton.sock");
        assert_eq!(socket(&path), Ok(()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = socket(&path).unwrap_err();
        assert!(refused.what.starts_with(&format!("another director (pid {}) listens on", std::process::id())), "{refused}");
        drop(listener);
        assert_eq!(socket(&path), Ok(()), "nobody listens any more");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "notes").unwrap();
        assert!(socket(&path).unwrap_err().what.ends_with("is not a socket"));
    }

    #[test]
    fn address_in_use_is_refused() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = listen("control.listen", taken.local_addr().unwrap(), |_| false).unwrap_err();
        assert!(refused.what.starts_with("cannot listen on 127.0.0.1:") && refused.what.contains("in use"), "{refused}");
        let nobodys: SocketAddr = "192.0.2.77:80".parse().unwrap();
        assert!(listen("control.listen", nobodys, |_| false).is_err());
        assert_eq!(listen("control.listen", nobodys, |_| true), Ok(()));
    }

    #[test]
    fn interface_that_is_not_there_and_a_name_that_is_taken_are_refused() {
        let refused = {
            let port = &config("\"net_af_packet0,iface=nosuch0\"").ports[0];
            device(port, &port.device).unwrap_err()
        };
        assert!(refused.what.contains("there is no network interface 'nosuch0'") && refused.mend.contains("lo"), "{refused}");
        let mut port = config("\"net_null0\"").ports[0].clone();
        assert_eq!(tap_name("nosuch0"), Ok(()));
        port.name = "lo".to_owned();
        assert!(tap_name(&port.name).unwrap_err().what.contains("of this name already"));
    }

    #[test]
    fn missing_tun_device_is_refused() {
        assert!(tun_device(Path::new("/nonexistent/tun")).unwrap_err().mend.contains("modprobe tun"));
    }
}
