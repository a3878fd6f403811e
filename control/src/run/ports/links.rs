//! Links that come and go: told as events, and to the director, which uses nobody behind a port without one.

use std::path::Path;
use std::time::Duration;

use super::Ports;
use crate::config::{self, Config};
use crate::director::Director;
use crate::model::What;

/// How often links are looked at: every driver can be asked, and few interrupt.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where the kernel tells of its interfaces (sysfs-class-net).
const INTERFACES: &str = "/sys/class/net";

/// Whether frames can pass by this port now.
pub(super) fn is_up(port: &config::Port, open: &dpdk::port::Port) -> bool {
    // The drivers that work on an interface of the kernel say "up" from the start to the stop of the port.
    let carrier = port.device.kernel_interface().and_then(|name| carrier(Path::new(INTERFACES), name));
    carrier.unwrap_or(true) && open.link().up
}

/// Whether the kernel's interface `name` is up and has a carrier; `None` when nothing is known of it.
fn carrier(interfaces: &Path, name: &str) -> Option<bool> {
    match std::fs::read_to_string(interfaces.join(name).join("carrier")) {
        Ok(text) => Some(text.trim() == "1"),
        // So the kernel answers for an interface that is set down.
        Err(why) if why.raw_os_error() == Some(nix::libc::EINVAL) => Some(false),
        Err(_) => None,
    }
}

/// Tells of links that come and go. Never ends.
pub(in crate::run) async fn watch(ports: Ports, config: Config, director: Director) {
    let mut before = vec![true; config.ports.len()];
    loop {
        let now = ports.links(&config);
        for (index, (port, (was, is))) in config.ports.iter().zip(before.iter().zip(&now)).enumerate() {
            if was != is {
                changed(&config, (index, &port.name), *is, &director);
            }
        }
        before = now;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn changed(config: &Config, (index, name): (usize, &str), up: bool, director: &Director) {
    let port = name.to_owned();
    if up {
        director.events().raise(What::LinkUp { port }, "the device has a link");
    } else {
        director.events().raise(What::LinkDown { port }, "the device has no link: nobody behind it is used until it has one");
    }
    let vlans = config.vlans.iter().enumerate().filter(|(_, vlan)| vlan.port == index).map(|(at, _)| config.ports.len() + at);
    for number in std::iter::once(index).chain(vlans) {
        // Ports and VLANs are 64 at most.
        director.set_link(u16::try_from(number).unwrap_or(u16::MAX), up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrier_is_what_the_kernel_says() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("up", "1\n"), ("down", "0\n")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("carrier"), text).unwrap();
        }
        let seen = ["up", "down", "nosuch"].map(|name| carrier(folder.path(), name));
        assert_eq!(seen, [Some(true), Some(false), None]);
    }
}
