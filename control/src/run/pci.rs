//! PCI devices as the kernel shows them in sysfs.

use std::path::Path;

use super::error::StartError;

/// Drivers that hand a device to DPDK.
const FOR_DPDK: &[&str] = &["vfio-pci", "uio_pci_generic", "igb_uio"];
/// Drivers of the kernel that DPDK shares the device with.
const SHARED: &[&str] = &["mlx5_core", "mlx4_core", "mana"];

/// Refuses a PCI device that is not there, or is no network device.
///
/// `bus` is `/sys/bus/pci`.
pub(super) fn exists(port: &str, address: &str, bus: &Path) -> Result<(), StartError> {
    let device = bus.join("devices").join(address);
    if !device.exists() {
        return Err(StartError::new(
            format!("port '{port}': there is no PCI device {address}"),
            format!("name one of the network devices here: {}", candidates(bus)),
        ));
    }
    if !is_network(&device) {
        return Err(StartError::new(
            format!("port '{port}': the PCI device {address} is not a network device"),
            format!("name one of the network devices here: {}", candidates(bus)),
        ));
    }
    Ok(())
}

/// As [`exists`], and refuses one that belongs to a driver of the kernel.
pub(super) fn check(port: &str, address: &str, bus: &Path) -> Result<(), StartError> {
    exists(port, address, bus)?;
    match driver(&bus.join("devices").join(address)) {
        Some(driver) if FOR_DPDK.contains(&driver.as_str()) || SHARED.contains(&driver.as_str()) => Ok(()),
        bound => {
            let state = bound.map_or_else(|| "has no driver".to_owned(), |driver| format!("belongs to the kernel's driver {driver}"));
            Err(StartError::new(
                format!("port '{port}': the PCI device {address} {state}, so DPDK cannot have it"),
                format!(
                    "{} (until the next boot: dpdk-devbind.py -b vfio-pci {address}); \
                     its network interface goes away then, so not the one that you are logged in by",
                    bind(address)
                ),
            ))
        }
    }
}

/// Refuses a device that vfio-pci has and whose vfio group this user may not open.
///
/// `bus` is `/sys/bus/pci`; `access` asks whether a file may be read and written.
pub(super) fn permitted(port: &str, address: &str, bus: &Path, access: impl Fn(&Path) -> nix::Result<()>) -> Result<(), StartError> {
    let device = bus.join("devices").join(address);
    if driver(&device).as_deref() != Some("vfio-pci") {
        return Ok(());
    }
    let Some(group) = std::fs::read_link(device.join("iommu_group")).ok().and_then(|link| Some(link.file_name()?.to_owned())) else {
        // Without an IOMMU; DPDK says what it misses.
        return Ok(());
    };
    let file = Path::new("/dev/vfio").join(group);
    match access(&file) {
        Err(nix::errno::Errno::EACCES) => Err(StartError::new(
            format!("port '{port}': {} of the PCI device {address} may not be opened by this user", file.display()),
            format!("{} (gives it to the user baton, also at each boot), or start as root", bind(address)),
        )),
        _ => Ok(()),
    }
}

/// The command that gives a device to vfio-pci; also one that had been given, and that something else (driverctl) took away: its unit, which is
/// still active, does nothing when it is started.
fn bind(address: &str) -> String {
    format!("systemctl enable baton-bind@{address} && systemctl restart baton-bind@{address}")
}

fn candidates(bus: &Path) -> String {
    // A machine without PCI has no such folder.
    let devices = std::fs::read_dir(bus.join("devices")).into_iter().flatten().flatten();
    let mut list: Vec<String> = devices
        .map(|entry| entry.path())
        .filter(|device| is_network(device))
        .filter_map(|device| {
            let address = device.file_name()?.to_str()?.to_owned();
            let driver = driver(&device).unwrap_or_else(|| "no driver".to_owned());
            Some(format!("{address} ({driver})"))
        })
        .collect();
    list.sort();
    if list.is_empty() { "none; a virtual device would do, such as \"net_af_packet0,iface=eth1\"".to_owned() } else { list.join(", ") }
}

/// Class 0x02 of the PCI code and ID assignment: network controllers.
fn is_network(device: &Path) -> bool {
    std::fs::read_to_string(device.join("class")).is_ok_and(|class| class.starts_with("0x02"))
}

/// The driver that a device belongs to.
pub(super) fn driver(device: &Path) -> Option<String> {
    std::fs::read_link(device.join("driver")).ok()?.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bus with (address, class, driver).
    fn bus(devices: &[(&str, &str, Option<&str>)]) -> tempfile::TempDir {
        let bus = tempfile::tempdir().unwrap();
        for (address, class, driver) in devices {
            let device = bus.path().join("devices").join(address);
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("class"), format!("{class}\n")).unwrap();
            if let Some(driver) = driver {
                std::os::unix::fs::symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
            }
        }
        bus
    }

    #[test]
    fn only_a_network_device_that_dpdk_can_have_is_taken() {
        let bus = bus(&[
            ("0000:03:00.0", "0x020000", Some("vfio-pci")),
            ("0000:04:00.0", "0x020000", Some("ixgbe")),
            ("0000:05:00.0", "0x020000", None),
            ("0000:06:00.0", "0x020000", Some("mlx5_core")),
            ("0000:00:1f.2", "0x010601", Some("ahci")),
        ]);
        let says = |address| check("lan", address, bus.path()).map_err(|error| error.to_string());
        assert_eq!(says("0000:03:00.0"), Ok(()));
        assert_eq!(says("0000:06:00.0"), Ok(()));
        let refused = says("0000:04:00.0").unwrap_err();
        assert!(
            refused.contains("belongs to the kernel's driver ixgbe") && refused.contains("&& systemctl restart baton-bind@0000:04:00.0 "),
            "{refused}"
        );
        assert!(says("0000:05:00.0").unwrap_err().contains("has no driver"));
        assert!(says("0000:00:1f.2").unwrap_err().contains("is not a network device"));
        let refused = says("0000:09:00.0").unwrap_err();
        assert!(refused.contains("there is no PCI device 0000:09:00.0"), "{refused}");
        assert!(
            refused.ends_with("0000:03:00.0 (vfio-pci), 0000:04:00.0 (ixgbe), 0000:05:00.0 (no driver), 0000:06:00.0 (mlx5_core)"),
            "{refused}"
        );
    }

    #[test]
    fn vfio_group_of_another_user_is_refused() {
        use nix::errno::Errno;

        let bus = bus(&[("0000:03:00.0", "0x020000", Some("vfio-pci")), ("0000:04:00.0", "0x020000", Some("mlx5_core"))]);
        for address in ["0000:03:00.0", "0000:04:00.0"] {
            let group = bus.path().join("devices").join(address).join("iommu_group");
            std::os::unix::fs::symlink("../../../kernel/iommu_groups/12", group).unwrap();
        }
        let asked = |path: &Path| if path == Path::new("/dev/vfio/12") { Err(Errno::EACCES) } else { Ok(()) };
        let refused = permitted("lan", "0000:03:00.0", bus.path(), asked).unwrap_err().to_string();
        assert!(refused.contains("/dev/vfio/12") && refused.contains("baton-bind@0000:03:00.0"), "{refused}");
        assert_eq!(permitted("lan", "0000:03:00.0", bus.path(), |_| Ok(())), Ok(()));
        assert_eq!(permitted("lan", "0000:04:00.0", bus.path(), asked), Ok(()), "its driver is the kernel's");
    }

    #[test]
    fn machine_without_a_nic_is_told_of_virtual_devices() {
        let bus = bus(&[]);
        assert!(check("lan", "0000:03:00.0", bus.path()).unwrap_err().mend.contains("net_af_packet0,iface=eth1"));
    }
}
