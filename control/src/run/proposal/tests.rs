//! Plans for prepared machines: two NUMA nodes with hyper-threads, NICs on either.

use std::fs;

use super::*;

const NIC: &str = "0000:03:00.0";
const OTHER: &str = "0000:83:00.0";

struct Prepared(tempfile::TempDir);

impl Prepared {
    /// Node 0 has cores 0 to 3 with their twins 8 to 11, node 1 cores 4 to 7 with 12 to 15; a NIC on each; 64 GiB.
    fn machine() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (node, list) in [(0, "0-3,8-11"), (1, "4-7,12-15")] {
            machine.put(&format!("sys/devices/system/node/node{node}/cpulist"), list);
            machine.put(&format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "512");
            machine.put(&format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/free_hugepages"), "500");
        }
        for core in 0..8 {
            for thread in [core, core + 8] {
                machine.put(&format!("sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list"), &format!("{core},{}", core + 8));
            }
        }
        for (address, node, driver) in [(NIC, "0", "vfio-pci"), (OTHER, "1", "ice")] {
            let device = format!("sys/bus/pci/devices/{address}");
            machine.put(&format!("{device}/class"), "0x020000");
            machine.put(&format!("{device}/numa_node"), node);
            std::os::unix::fs::symlink(format!("../../drivers/{driver}"), machine.0.path().join(&device).join("driver")).unwrap();
        }
        machine.put("proc/meminfo", "MemTotal:       67108864 kB\nMemAvailable:   60000000 kB");
        machine.put("proc/cpuinfo", "vendor_id : GenuineIntel");
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn plan(&self, devices: &[&str], workers: usize, connections: &str) -> Result<String, String> {
        self.propose(&wish(devices, workers, connections))
    }

    fn propose(&self, wish: &Wish) -> Result<String, String> {
        propose(wish, self.0.path(), &[0, 1]).map_err(|error| error.to_string())
    }
}

fn wish(devices: &[&str], workers: usize, connections: &str) -> Wish {
    Wish {
        devices: devices.iter().map(|device| device.parse().unwrap()).collect(),
        workers,
        connections: connections.parse().unwrap(),
        addresses: Vec::new(),
        gateways: Vec::new(),
    }
}

fn parsed(text: &str) -> Config {
    config::parse(text, Path::new("baton.toml"), &[0, 1]).unwrap_or_else(|faults| panic!("{faults}"))
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|is| is == *line), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn plan_names_memory_pages_queues_and_command_line() {
    let text = Prepared::machine().plan(&[NIC], 3, "9M").unwrap();
    says(
        &text,
        &[
            "#      515 MiB for connections (3 workers x 3M x 60 bytes)",
            "#      275 MiB more when all are of IPv6 (32 bytes a connection)",
            "#   NUMA node 0: 448 (896 MiB); 1024 MiB are there, 1000 MiB of them free",
            "#     echo 448 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
            "#   lan (0000:03:00.0, NUMA node 0, driver vfio-pci): 3 to receive and 3 to send, one of each a worker, of 1024 frames",
            "#   0 for the control plane, 1-3 for workers",
            "#   default_hugepagesz=2M hugepagesz=2M hugepages=0:448 intel_iommu=on iommu=pt isolcpus=1-3 nohz_full=1-3 rcu_nocbs=1-3",
        ],
    );
    let config = parsed(&text);
    assert_eq!((config.workers.cores.as_slice(), config.control.core, config.limits.connections), (&[1, 2, 3][..], 0, 3_000_000));
    assert!(!config.eal.no_huge);
}

#[test]
fn workers_are_on_the_nics_node_and_share_a_core_last() {
    let machine = Prepared::machine();
    let cores = |devices: &[&str], workers| parsed(&machine.plan(devices, workers, "1M").unwrap()).workers.cores;
    assert_eq!(cores(&[OTHER], 4), [4, 5, 6, 7]);
    assert_eq!(cores(&[OTHER], 5), [4, 5, 6, 7, 12]);
    // Core 8 is the control plane's twin.
    assert_eq!(cores(&[NIC], 4), [1, 2, 3, 8]);
    assert_eq!(cores(&[NIC, OTHER], 7), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn ports_on_two_nodes_have_pages_on_both() {
    let text = Prepared::machine().plan(&[NIC, OTHER], 6, "6M").unwrap();
    let line = text.lines().find(|line| line.contains("hugepagesz=2M")).unwrap();
    assert!(line.contains("hugepages=0:") && line.contains(",1:"), "{line}");
    says(&text, &["name = \"wan\""]);
    assert!(text.contains("baton-bind@0000:83:00.0"), "its driver is the kernel's: {text}");
}

#[test]
fn processors_of_amd_need_no_switch_for_the_iommu() {
    let machine = Prepared::machine();
    machine.put("proc/cpuinfo", "vendor_id : AuthenticAMD");
    let text = machine.plan(&[NIC], 1, "1M").unwrap();
    assert!(text.contains(" iommu=pt ") && !text.contains("intel_iommu"), "{text}");
}

#[test]
fn virtual_device_needs_no_huge_pages() {
    let mut wish = wish(&["net_af_packet0,iface=d0"], 1, "100K");
    wish.addresses = vec!["10.10.24.10/24".parse().unwrap(), "fd00:10::10/64".parse().unwrap()];
    wish.gateways = vec!["10.10.24.1".parse().unwrap()];
    let text = Prepared::machine().propose(&wish).unwrap();
    says(
        &text,
        &[
            "#   none: virtual devices do without (eal.no_huge)",
            "#   isolcpus=1 nohz_full=1 rcu_nocbs=1",
            "connections = \"100K\"    # a worker",
        ],
    );
    let config = parsed(&text);
    assert!(config.eal.no_huge);
    assert_eq!((config.ports[0].addresses.len(), config.ports[0].gateways.len()), (2, 1));
}

#[test]
fn what_this_machine_cannot_have_is_refused() {
    let machine = Prepared::machine();
    let refused = machine.plan(&["0000:04:00.0"], 1, "1M").unwrap_err();
    assert!(
        refused.contains("there is no PCI device 0000:04:00.0") && refused.contains("0000:03:00.0 (vfio-pci), 0000:83:00.0 (ice)"),
        "{refused}"
    );
    let refused = machine.plan(&[NIC], 8, "1M").unwrap_err();
    assert!(refused.contains("there are 1-3, 8-11") && refused.contains("--workers 7"), "{refused}");
    machine.put("proc/meminfo", "MemTotal:       1048576 kB");
    let refused = machine.plan(&[NIC], 2, "30M").unwrap_err();
    assert!(refused.contains("2 workers x 15M x 60 bytes") && refused.contains("limits.connections = "), "{refused}");
    let mut strange = wish(&[NIC], 1, "1M");
    strange.addresses = vec!["10.10.24.10/24".parse().unwrap()];
    strange.gateways = vec!["192.0.2.1".parse().unwrap()];
    assert!(Prepared::machine().propose(&strange).unwrap_err().contains("192.0.2.1"));
}

#[test]
fn machine_that_says_nothing_of_nodes_is_planned_for_by_its_cpus() {
    let bare = Prepared(tempfile::tempdir().unwrap());
    let config = parsed(&bare.plan(&["net_null0"], 1, "1M").unwrap());
    assert_eq!((config.control.core, config.workers.cores), (0, vec![1]));
}
