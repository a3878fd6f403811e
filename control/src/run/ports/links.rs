//! Links that come and go: told as events, and to the director, which uses nobody behind a port without one.

use std::path::Path;
use std::time::Duration;

use super::Ports;
use crate::config::{self, BondMode, Config, Device};
use crate::director::Director;
use crate::model::What;

/// How often links are looked at: every driver can be asked, and few interrupt.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where the kernel tells of its interfaces (sysfs-class-net).
const INTERFACES: &str = "/sys/class/net";

/// Whether frames can pass by this port now; by a bond, when they can by one of its members.
pub(super) fn is_up(port: &config::Port, open: &dpdk::port::Port) -> bool {
    match &port.bond {
        Some(bond) => bond.members.iter().any(is_member_up),
        None => has_carrier(&port.device) && open.link().up,
    }
}

/// Whether frames can pass by this member of a bond now.
pub(super) fn is_member_up(device: &Device) -> bool {
    has_carrier(device) && dpdk::port::Port::look_at(device.port_name()).is_some_and(|(_, link)| link.up)
}

/// Whether the kernel's interface behind a device can carry frames: the drivers that stand on one say "up" whatever becomes of it.
fn has_carrier(device: &Device) -> bool {
    device.kernel_interface().and_then(|name| carrier(Path::new(INTERFACES), name)).unwrap_or(true)
}

/// Lets another member carry the traffic of a bond when the one that does has no link: few drivers tell the bond themselves. Whether it does.
pub(super) fn choose_member(port: &config::Port, open: &dpdk::port::Port) -> bool {
    let Some(bond) = port.bond.as_ref().filter(|bond| bond.mode == BondMode::ActiveBackup) else { return false };
    let active = open.primary();
    let is_active = |member: &&Device| active.as_deref() == Some(member.port_name());
    if bond.members.iter().find(is_active).is_some_and(is_member_up) {
        return false;
    }
    let Some(next) = bond.members.iter().find(|member| is_member_up(member)) else { return false };
    match open.set_primary(next.port_name()) {
        Ok(()) => {
            let active = active.unwrap_or_default();
            tracing::warn!("port {}: {next} carries its traffic from now on: {active} has no link", port.name);
            true
        }
        Err(error) => {
            tracing::error!("port {}: {next} cannot take over: {error}", port.name);
            false
        }
    }
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
        let another_way = ports.choose_members(&config);
        let now = ports.links(&config);
        for (index, (port, (was, is))) in config.ports.iter().zip(before.iter().zip(&now)).enumerate() {
            if was != is {
                changed(&config, (index, &port.name), *is, &director);
            }
        }
        // Whoever sends to a VIP, and the switches on the way, learn from an announcement where it is now.
        if another_way || before.iter().zip(&now).any(|(was, is)| !was && *is) {
            director.announce_vips();
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
