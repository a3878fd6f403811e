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
        Some(bond) => bond.members.iter().any(|member| is_member_up(open, member)),
        None => has_carrier(&port.device) && open.link().up,
    }
}

/// Whether frames can pass by this member of a bond now. The bond is asked, which asks the member's driver by a thread of its own: drivers do not
/// expect two to ask.
pub(super) fn is_member_up(bond: &dpdk::port::Port, member: &Device) -> bool {
    has_carrier(member) && bond.active_members().iter().any(|name| name == member.port_name())
}

/// Whether the kernel's interface behind a device can carry frames: the drivers that stand on one say "up" whatever becomes of it.
fn has_carrier(device: &Device) -> bool {
    device.kernel_interface().and_then(|name| carrier(Path::new(INTERFACES), name)).unwrap_or(true)
}

/// The member that carries the traffic of a bond where one does for all, if any can; it is another one from now on when that has no link. Drivers of
/// NICs tell the bond themselves, which then has changed it already; those on an interface of the kernel do not.
pub(super) fn choose_member(port: &config::Port, open: &dpdk::port::Port) -> Option<Device> {
    let bond = port.bond.as_ref().filter(|bond| bond.mode == BondMode::ActiveBackup)?;
    let active = open.primary();
    let is_active = |member: &&Device| active.as_deref() == Some(member.port_name());
    if let Some(member) = bond.members.iter().find(is_active).filter(|member| is_member_up(open, member)) {
        return Some(member.clone());
    }
    let next = bond.members.iter().find(|member| is_member_up(open, member))?;
    match open.set_primary(next.port_name()) {
        Ok(()) => Some(next.clone()),
        Err(error) => {
            tracing::error!("port {}: {next} cannot take over: {error}", port.name);
            None
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
    let mut carrying = ports.choose_members(&config);
    loop {
        let another_way = take_over(&config, &mut carrying, ports.choose_members(&config));
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

/// Notes the members that carry the traffic of bonds `now`; whether one took over from another, whoever made it.
fn take_over(config: &Config, carrying: &mut [Option<Device>], now: Vec<Option<Device>>) -> bool {
    let mut any = false;
    for (port, (carrying, now)) in config.ports.iter().zip(carrying.iter_mut().zip(now)) {
        let Some(now) = now else { continue };
        if let Some(before) = carrying.replace(now.clone()).filter(|before| *before != now) {
            tracing::warn!("port {}: {now} carries its traffic from now on, in place of {before}", port.name);
            any = true;
        }
    }
    any
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
