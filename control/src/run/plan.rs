//! How much of everything the configuration needs, and what EAL is told.

use dpdk::eal::EalConfig;
use dpdk::mempool::{DEFAULT_DATA_ROOM, HEADROOM};

use crate::config::{Config, Device, Port};

/// Descriptors of each receive and of each transmit queue.
pub(super) const DESCRIPTORS: u16 = 1024;
/// Frames that each ring between a worker and the kernel holds.
pub(super) const EXCEPTION_RING: u32 = 1024;
/// Frames that each worker keeps of a pool for itself: eight bursts, and the most that DPDK allows.
pub(super) const CACHE: u32 = 512;

/// Frames that a worker may hold besides: bursts in hand and waiting to be sent, on each port.
const IN_HAND: u32 = 256;
/// Fragments that a worker keeps.
const FRAGMENTS: u32 = 512;
/// Frames that `net_af_xdp` takes for each queue besides its descriptors (`ETH_AF_XDP_NUM_BUFFERS`, filled twice over).
const AF_XDP_BUFFERS: u32 = 8192;
/// What DPDK needs in memory besides pools and rings, MiB: devices, tables, heap.
pub(super) const BASE_MEMORY: u64 = 64;
/// What an mbuf takes besides its data room: its own 128 bytes, the pool's header and padding.
const MBUF_OVERHEAD: u64 = 256;

/// Frames in each pool: enough for every queue, ring, cache and burst to be full at once, so that no frame is ever lost for
/// want of a buffer; one less than a power of two, which wastes no memory.
pub(super) fn mbufs(config: &Config) -> u32 {
    let workers = u32::try_from(config.workers.cores.len()).unwrap_or(u32::MAX);
    let of_port = |port: &Port| {
        let af_xdp = port.devices().iter().any(|device| device.driver() == Some("net_af_xdp"));
        let buffers = if af_xdp { AF_XDP_BUFFERS } else { 0 };
        let queue = 2 * u32::from(DESCRIPTORS) + IN_HAND + buffers;
        let members = u32::try_from(port.devices().len()).unwrap_or(u32::MAX);
        queue.saturating_mul(members).saturating_mul(workers).saturating_add(2 * EXCEPTION_RING)
    };
    // A cache is flushed at one and a half times its size; the control thread allocates too, without a cache of its own.
    let caches = (CACHE + CACHE / 2).saturating_mul(workers);
    let kept = FRAGMENTS.saturating_mul(workers);
    let of_vlans = (2 * EXCEPTION_RING).saturating_mul(u32::try_from(config.vlans.len()).unwrap_or(u32::MAX));
    let besides = caches.saturating_add(kept).saturating_add(of_vlans);
    let needed = config.ports.iter().map(of_port).fold(besides, u32::saturating_add);
    let wanted = config.eal.mbufs.unwrap_or(0).max(needed);
    wanted.checked_add(1).and_then(u32::checked_next_power_of_two).map_or(u32::MAX, |power| power - 1)
}

/// Bytes of a frame buffer, headroom included: one buffer holds the largest frame of every port.
pub(super) fn data_room(config: &Config) -> u16 {
    /// Ethernet header, two VLAN tags, frame check sequence.
    const AROUND: u16 = 14 + 8 + 4;
    /// What `net_af_packet` takes off `framesz` before it looks whether the rest fits a buffer.
    const RING_HEADER: u16 = 32;
    let frame = |port: &Port| {
        let ring = |device: &Device| device.argument("framesz").filter(|_| device.driver() == Some("net_af_packet"))?.parse::<u16>().ok();
        let ring = port.devices().iter().filter_map(ring).max().unwrap_or(0);
        (port.mtu.unwrap_or(0) + AROUND).max(ring.saturating_sub(RING_HEADER)).next_multiple_of(64)
    };
    let largest = config.ports.iter().map(frame).max().unwrap_or(0);
    DEFAULT_DATA_ROOM.max(HEADROOM.saturating_add(largest))
}

/// Bytes of a frame buffer with all that belongs to it.
pub(super) fn bytes_of_mbuf(config: &Config) -> u64 {
    u64::from(data_room(config)) + MBUF_OVERHEAD
}

/// Memory that DPDK needs with one pool, MiB.
pub(super) fn memory(config: &Config) -> u32 {
    let pool = u64::from(mbufs(config)) * bytes_of_mbuf(config);
    u32::try_from(BASE_MEMORY + pool.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

/// What EAL is told.
pub(super) fn eal(config: &Config) -> EalConfig {
    let mut extra = Vec::new();
    let shared = config.eal.file_prefix.is_some();
    if config.eal.no_huge && !shared {
        // Without shared files, directors side by side need no prefix of their own and leave nothing behind.
        extra.push("--no-shconf".to_owned());
    }
    extra.extend(config.eal.args.iter().cloned());
    let chatty = config.eal.args.iter().any(|argument| argument.starts_with("--log-level"));
    let (pci, vdevs): (Vec<&Device>, Vec<&Device>) =
        config.ports.iter().flat_map(Port::devices).partition(|device| matches!(device, Device::Pci(_)));
    let texts = |devices: Vec<&Device>| devices.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of_bond = |port: &Port| {
        let bond = port.bond.as_ref()?;
        let members: Vec<&str> = bond.members.iter().map(Device::port_name).collect();
        Some(dpdk::eal::bond(port.device.port_name(), bond.mode, &members))
    };
    // Behind their members, which they look for.
    let bonds = config.ports.iter().filter_map(of_bond);
    EalConfig {
        program: "baton".to_owned(),
        main_core: config.control.core,
        worker_cores: config.workers.cores.clone(),
        no_huge: config.eal.no_huge,
        in_memory: !config.eal.no_huge && !shared,
        // On huge pages DPDK takes more as it needs it; on normal ones it takes all at once, and 64 MiB unless told.
        memory_mb: config.eal.memory.map_or_else(|| config.eal.no_huge.then(|| memory(config)), |given| Some(given.mebibytes())),
        file_prefix: config.eal.file_prefix.clone().unwrap_or_default(),
        vdevs: texts(vdevs).into_iter().chain(bonds).collect(),
        pci_allow: texts(pci),
        log_level: (!chatty).then(|| "warning".to_owned()),
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        crate::config::parse(text, std::path::Path::new("baton.toml"), &[0, 1, 2]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    const VDEV: &str = "[[port]]\nname = \"lan\"\ndevice = \"net_af_packet0,iface=d0\"\n";
    const PCI: &str = "[[port]]\nname = \"wan\"\ndevice = \"03:00.1\"\n";

    #[test]
    fn pool_holds_what_queues_rings_and_caches_can() {
        assert_eq!(mbufs(&config(VDEV)), 8191);
        assert_eq!(mbufs(&config(&format!("{VDEV}{PCI}[workers]\ncores = [1, 2]\n"))), 16_383);
        assert_eq!(mbufs(&config(&format!("{VDEV}[eal]\nmbufs = 200000\n"))), 262_143);
    }

    #[test]
    fn buffer_holds_the_largest_frame() {
        assert_eq!(data_room(&config(VDEV)), 2176);
        assert_eq!(data_room(&config(&format!("{PCI}mtu = 9000\n"))), 128 + 9088);
    }

    #[test]
    fn arguments_on_normal_pages() {
        let arguments = eal(&config(&format!("{VDEV}[workers]\ncores = [1, 2]\n[eal]\nno_huge = true\n"))).arguments();
        let text = arguments.join(" ");
        assert_eq!(
            text,
            "baton --lcores 0@0,1@1,2@2 --main-lcore 0 --no-huge -m 102 --no-pci --vdev net_af_packet0,iface=d0 \
             --log-level warning --no-telemetry --no-shconf"
        );
    }

    #[test]
    fn arguments_on_huge_pages() {
        let text = eal(&config(&format!("{PCI}[eal]\nmemory = \"2G\"\n"))).arguments().join(" ");
        assert_eq!(text, "baton --lcores 0@0,1@1 --main-lcore 0 --in-memory -m 2048 -a 0000:03:00.1 --log-level warning --no-telemetry");
    }

    #[test]
    fn bond_is_made_of_its_members() {
        let bond = "[[port]]\nname = \"lan\"\nmembers = [\"03:00.0\", \"net_tap0,iface=d0\"]\n";
        let text = eal(&config(bond)).arguments().join(" ");
        let end = "-a 0000:03:00.0 --vdev net_tap0,iface=d0 --vdev net_bonding0,mode=1,slave=0000:03:00.0,slave=net_tap0 --log-level";
        let text = text.replace(",member=", ",slave=");
        assert!(text.contains(end), "{text}");
        let text = eal(&config(&format!("{bond}bond = \"802.3ad\"\n"))).arguments().join(" ");
        assert!(text.contains("--vdev net_bonding0,mode=4,xmit_policy=l34,"), "{text}");
        let four = bond.replace("members = [", "members = [\"04:00.0\", \"05:00.0\", ");
        assert!(mbufs(&config(&four)) > mbufs(&config(bond)), "queues of all members");
    }

    #[test]
    fn file_prefix_lets_other_dpdk_programs_attach() {
        let text = eal(&config(&format!("{PCI}[eal]\nfile_prefix = \"baton\"\nargs = [\"--log-level=debug\"]\n"))).arguments().join(" ");
        assert_eq!(text, "baton --lcores 0@0,1@1 --main-lcore 0 --file-prefix baton -a 0000:03:00.1 --no-telemetry --log-level=debug");
    }
}
