//! Locks that keep two directors off one device and one socket.
//!
//! A lock is a file with the holder's pid in it, held with flock(2): it goes with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::error::StartError;
use crate::codes::Code;
use crate::config::{Config, Device};

/// Where locks are, the same for all directors of a machine.
pub(super) const FOLDER: &str = "/run/baton";

/// Locks on everything that no two directors may share; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Locks(#[expect(dead_code, reason = "held, not read")] Vec<Flock<File>>);

/// What is locked, by the name of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Claim {
    file: String,
    what: String,
    mend: String,
}

impl Locks {
    /// Takes every lock that `config` needs, or says who has one of them.
    pub(super) fn take(config: &Config, folder: &Path) -> Result<Self, StartError> {
        std::fs::create_dir_all(folder).map_err(|why| {
            StartError::new(
                format!("cannot make the folder {}: {why}", folder.display()),
                "start as root, or let systemd make it (RuntimeDirectory=baton)",
            )
        })?;
        claims(config, network_namespace()).iter().map(|claim| lock(folder, claim)).collect::<Result<_, _>>().map(Self)
    }
}

fn claims(config: &Config, namespace: u64) -> Vec<Claim> {
    let socket = config.control.entrance.socket.display();
    let socket = Claim {
        file: format!("socket{}", socket.to_string().replace('/', "-")),
        what: format!("the API's socket {socket}"),
        mend: "stop that director, or give this one a control.socket of its own".to_owned(),
    };
    let device = |device: &Device| {
        // Interfaces of the kernel belong to a network namespace: the same name elsewhere is another interface.
        let interface = device.kernel_interface().or_else(|| device.driver().filter(|d| *d == "net_tap").and(device.argument("iface")));
        let file = match (device, interface) {
            (Device::Pci(address), _) => format!("pci-{address}"),
            (Device::Virtual(_), Some(name)) => format!("interface-{namespace}-{}", name.replace('/', "-")),
            (Device::Virtual(_), None) => return None,
        };
        Some(Claim { file, what: format!("the device {device}"), mend: "stop that director, or choose another port.device".to_owned() })
    };
    std::iter::once(socket).chain(config.ports.iter().flat_map(crate::config::Port::devices).filter_map(device)).collect()
}

/// The network namespace that this process is in; 0 when the kernel does not say.
fn network_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |file| file.ino())
}

fn lock(folder: &Path, claim: &Claim) -> Result<Flock<File>, StartError> {
    let path: PathBuf = folder.join(format!("{}.lock", claim.file));
    let failed =
        |why: String| StartError::new(format!("cannot lock {}: {why}", path.display()), "start as root, or as the owner of this file");
    let open =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(nix::libc::O_NOFOLLOW).open(&path);
    let file = open.map_err(|why| failed(why.to_string()))?;
    let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, why)| {
        if why != nix::errno::Errno::EWOULDBLOCK {
            return failed(why.to_string());
        }
        let mut pid = String::new();
        let holder = match file.read_to_string(&mut pid) {
            Ok(_) if !pid.trim().is_empty() => format!("another director (pid {})", pid.trim()),
            _ => "another director".to_owned(),
        };
        StartError::new(format!("{holder} has {}", claim.what), claim.mend.clone()).coded(Code::InUse)
    })?;
    let written = held.set_len(0).and_then(|()| held.rewind()).and_then(|()| writeln!(held, "{}", std::process::id()));
    written.map_err(|why| failed(why.to_string()))?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(device: &str, socket: &str) -> Config {
        let text = format!("[[port]]\nname = \"lan\"\ndevice = \"{device}\"\n[control]\nsocket = \"{socket}\"\n");
        crate::config::parse(&text, Path::new("baton.toml"), &[0, 1]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    #[test]
    fn second_director_on_a_device_is_refused_with_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Locks::take(&config("0000:03:00.0", "/run/a.sock"), folder.path()).unwrap();
        let refused = Locks::take(&config("03:00.0", "/run/b.sock"), folder.path()).unwrap_err();
        assert_eq!(refused.what, format!("another director (pid {}) has the device 0000:03:00.0", std::process::id()));
        drop(first);
        Locks::take(&config("03:00.0", "/run/b.sock"), folder.path()).unwrap();
    }

    #[test]
    fn second_director_on_a_socket_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Locks::take(&config("net_null0", "/run/a.sock"), folder.path()).unwrap();
        let refused = Locks::take(&config("net_null0", "/run/a.sock"), folder.path()).unwrap_err();
        assert!(refused.what.ends_with("has the API's socket /run/a.sock"), "{refused}");
        Locks::take(&config("net_null0", "/run/b.sock"), folder.path()).unwrap();
    }

    #[test]
    fn interface_of_the_same_name_in_another_namespace_is_another_device() {
        let of = |namespace| claims(&config("net_af_packet0,iface=d0", "/run/a.sock"), namespace)[1].file.clone();
        assert_eq!(of(7), "interface-7-d0");
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn tap_and_af_packet_on_one_interface_are_one_device() {
        let of = |device| claims(&config(device, "/run/a.sock"), 7)[1].clone().file;
        assert_eq!(of("net_tap3,iface=d0"), of("net_af_xdp0,iface=d0"));
    }
}
