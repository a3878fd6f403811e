//! What a device can do, and what is done where it cannot.

use std::path::Path;

use dpdk::port::{Port, PortInfo};

use crate::config;
use crate::model::Spread;
use crate::run::StartError;

/// Ethernet header and two VLAN tags.
const AROUND: u32 = 14 + 8;
/// What the kernel puts before a received packet in a frame of `net_af_packet`'s ring (`TPACKET2_HDRLEN` and alignment, packet(7)).
const BEFORE_PACKET: u32 = 80;
/// `framesz` of `net_af_packet` when it is not given.
const USUAL_FRAME: u32 = 2048;

/// What the port's device can do; of a bond, what all its members can, since its driver knows that only later.
pub(in crate::run) fn info(port: &config::Port, own: PortInfo) -> PortInfo {
    if port.bond.is_none() {
        return own;
    }
    port.devices().iter().filter_map(|member| Port::look_at(member.port_name())).fold(own, |all, one| PortInfo {
        max_rx_queues: all.max_rx_queues.min(one.max_rx_queues),
        max_tx_queues: all.max_tx_queues.min(one.max_tx_queues),
        max_mtu: all.max_mtu.min(one.largest_mtu()),
        max_rx_frame: all.max_rx_frame.min(one.max_rx_frame),
        min_mtu: all.min_mtu.max(one.min_mtu),
        socket: all.socket.or(one.socket),
        rss_types: all.rss_types & one.rss_types,
        ..all
    })
}

/// The MTU that DPDK is to be told for the port, if any; what is configured is in force when this returns.
///
/// # Errors
/// The device cannot have the configured MTU; what can, or what makes it able to.
pub(in crate::run) fn mtu(port: &config::Port, info: &PortInfo) -> Result<Option<u16>, StartError> {
    let Some(wanted) = port.mtu else { return Ok(None) };
    let largest = info.largest_mtu();
    if wanted <= largest && wanted >= info.min_mtu {
        return Ok(Some(wanted));
    }
    if port.device.driver() == Some("net_af_packet") {
        // DPDK holds this driver to 1500; what it can is up to the frames of its ring and to the interface.
        return ring_holds(port, wanted).and_then(|()| interface_takes(port, wanted, Path::new("/sys/class/net"))).map(|()| None);
    }
    Err(StartError::new(
        format!(
            "port '{}': {} ({}) takes packets of {} to {largest} bytes, and mtu = {wanted} was given",
            port.name, port.device, info.driver, info.min_mtu
        ),
        "give another port.mtu, or take another device",
    ))
}

fn ring_holds(port: &config::Port, wanted: u16) -> Result<(), StartError> {
    let frame = port.device.argument("framesz").and_then(|text| text.parse().ok()).unwrap_or(USUAL_FRAME);
    let needed = u32::from(wanted) + AROUND + BEFORE_PACKET;
    if frame >= needed {
        return Ok(());
    }
    let size = needed.next_power_of_two();
    Err(StartError::new(
        format!("port '{}': mtu = {wanted} needs frames of {needed} bytes in the ring of {}, which has {frame}", port.name, port.device),
        format!("give the device framesz={size},blocksz={size}"),
    ))
}

fn interface_takes(port: &config::Port, wanted: u16, interfaces: &Path) -> Result<(), StartError> {
    let Some(name) = port.device.kernel_interface() else { return Ok(()) };
    let has = std::fs::read_to_string(interfaces.join(name).join("mtu")).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match has {
        Some(has) if has < u32::from(wanted) => Err(StartError::new(
            format!("port '{}': mtu = {wanted}, and the interface {name} has {has}", port.name),
            format!("ip link set {name} mtu {wanted}, or lower port.mtu"),
        )),
        _ => Ok(()),
    }
}

/// Receive and transmit queues to open for `workers` workers: one each, as far as the device has them. A NIC that does not spread flows over
/// its queues would leave all but one empty, so of such one is read; what is behind a virtual device fills all that there are.
pub(in crate::run) fn queues(port: &config::Port, info: &PortInfo, workers: u16) -> (u16, u16) {
    let spreads = port.devices().iter().all(|device| matches!(device, config::Device::Virtual(_))) || info.has_rss();
    let rx = if spreads { info.max_rx_queues.min(workers) } else { 1 };
    (rx.max(1), info.max_tx_queues.min(workers).max(1))
}

/// What gives the port a queue for each worker.
fn more_queues(port: &config::Port, workers: u16) -> String {
    match port.device.driver() {
        Some("net_af_packet") => format!("qpairs={workers} in its device would give each one of its own"),
        Some("net_af_xdp") => {
            let interface = port.device.kernel_interface().unwrap_or("IFACE");
            format!("ethtool -L {interface} combined {workers}, and queue_count={workers} in its device, would give each one of its own")
        }
        _ => "a device with more queues and RSS is faster".to_owned(),
    }
}

/// What the device cannot do and what is done in its place, for people.
pub(in crate::run) fn lacks(port: &config::Port, info: &PortInfo, workers: u16, all_multicast: bool, spread: Spread) -> Vec<String> {
    let mut lacks = Vec::new();
    let (rx, tx) = queues(port, info, workers);
    if spread == Spread::Software {
        let what = if info.has_rss() || rx > 1 { "too few receive queues" } else { "no RSS over several queues" };
        let more = more_queues(port, workers);
        lacks.push(format!("{what} ({rx} read, {workers} workers): frames are shared out among all workers by software; {more}"));
    }
    if tx < workers {
        lacks.push(format!("too few transmit queues ({tx} for {workers} workers): workers without one send through the others"));
    }
    if spread == Spread::Device {
        lacks.push("no RSS with our key: whoever stands behind the virtual device chooses the queue".to_owned());
    }
    if !info.rx_ip_checksum {
        lacks.push("no check of IPv4 header checksums: workers check them".to_owned());
    }
    if !all_multicast {
        lacks.push("no filter of multicast groups: it lets in what reaches it".to_owned());
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(device: &str, mtu: Option<u16>) -> config::Port {
        config::Port {
            name: "lan".to_owned(),
            device: device.parse().unwrap(),
            bond: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu,
            neighbours: Vec::new(),
        }
    }

    fn info(max_rx_frame: u32, max_mtu: u16) -> PortInfo {
        PortInfo { driver: "net_x".to_owned(), min_mtu: 68, max_mtu, max_rx_frame, ..PortInfo::default() }
    }

    #[test]
    fn mtu_that_the_device_cannot_have_is_refused_with_what_it_can() {
        let asked = |mtu| super::mtu(&port("net_memif0", mtu), &info(1518, u16::MAX));
        assert_eq!((asked(None), asked(Some(1500)), asked(Some(1400))), (Ok(None), Ok(Some(1500)), Ok(Some(1400))));
        let refused = asked(Some(9000)).unwrap_err();
        assert_eq!(refused.what, "port 'lan': net_memif0 (net_x) takes packets of 68 to 1500 bytes, and mtu = 9000 was given");
        assert_eq!(super::mtu(&port("net_x0", Some(9000)), &info(9728, 9706)), Ok(Some(9000)));
        assert!(super::mtu(&port("net_x0", Some(9600)), &info(9018, 9000)).is_err());
    }

    #[test]
    fn as_many_queues_are_opened_as_workers_can_use() {
        let with = |rx, tx, rss_types| PortInfo { max_rx_queues: rx, max_tx_queues: tx, rss_types, ..PortInfo::default() };
        let (nic, ring) = (port("03:00.0", None), port("net_af_packet0,iface=d0", None));
        assert_eq!(queues(&nic, &with(16, 8, u64::MAX), 4), (4, 4));
        assert_eq!(queues(&nic, &with(2, 2, u64::MAX), 4), (2, 2));
        assert_eq!(queues(&nic, &with(2, 2, 0), 2), (1, 2), "the second receive queue would stay empty");
        assert_eq!(queues(&ring, &with(2, 2, 0), 2), (2, 2), "the kernel's fanout fills both");
        assert_eq!(queues(&ring, &with(1, 1, 0), 2), (1, 1));
    }

    #[test]
    fn lack_of_queues_is_told_with_what_gives_more() {
        let one = PortInfo { max_rx_queues: 1, max_tx_queues: 1, rx_ip_checksum: true, ..PortInfo::default() };
        let told = |device| lacks(&port(device, None), &one, 3, true, Spread::Software);
        assert!(told("net_af_packet0,iface=d0")[0].contains("qpairs=3"));
        assert!(told("net_af_xdp0,iface=d0")[0].contains("ethtool -L d0 combined 3"));
        assert!(told("03:00.0")[0].contains("(1 read, 3 workers)") && told("03:00.0")[1].contains("transmit queues (1 for 3 workers)"));
        assert!(lacks(&port("03:00.0", None), &one, 1, true, Spread::OneWorker).is_empty());
    }

    #[test]
    fn packet_ring_needs_room_for_large_frames() {
        let asked = |device| super::mtu(&port(device, Some(9000)), &info(1518, u16::MAX));
        let refused = asked("net_af_packet0,iface=nosuch0").unwrap_err();
        assert_eq!(
            refused.what,
            "port 'lan': mtu = 9000 needs frames of 9102 bytes in the ring of net_af_packet0,iface=nosuch0, which has 2048"
        );
        assert_eq!(refused.mend, "give the device framesz=16384,blocksz=16384");
        assert_eq!(asked("net_af_packet0,iface=nosuch0,framesz=16384,blocksz=16384"), Ok(None));
    }

    #[test]
    fn interface_with_a_smaller_mtu_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d0")).unwrap();
        std::fs::write(folder.path().join("d0/mtu"), "1500\n").unwrap();
        let jumbo = port("net_af_packet0,iface=d0", Some(9000));
        let refused = interface_takes(&jumbo, 9000, folder.path()).unwrap_err();
        assert_eq!(
            (refused.what.as_str(), refused.mend.as_str()),
            ("port 'lan': mtu = 9000, and the interface d0 has 1500", "ip link set d0 mtu 9000, or lower port.mtu")
        );
        assert_eq!(interface_takes(&jumbo, 1500, folder.path()), Ok(()));
    }
}
