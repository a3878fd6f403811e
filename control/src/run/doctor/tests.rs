//! The doctor on prepared machines: two NUMA nodes, an IOMMU, a NIC.

use std::fs;

use super::*;

const NIC: &str = "0000:03:00.0";

struct Patient(tempfile::TempDir);

impl Patient {
    /// A machine with two nodes, cores 0 to 3 and 4 to 7, and a NIC on node 1, all as it should be.
    fn healthy() -> Self {
        let patient = Self(tempfile::tempdir().unwrap());
        for (node, list) in [(0, "0-3"), (1, "4-7")] {
            patient.put(&format!("sys/devices/system/node/node{node}/cpulist"), list);
            patient.pages(node, 512, 500);
        }
        for core in 0..8 {
            patient.put(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"), "performance");
            patient.put(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"), &core.to_string());
        }
        patient.put("sys/devices/system/cpu/isolated", "4-7");
        let device = format!("sys/bus/pci/devices/{NIC}");
        patient.put(&format!("{device}/class"), "0x020000");
        patient.put(&format!("{device}/numa_node"), "1");
        std::os::unix::fs::symlink("../../drivers/vfio-pci", patient.0.path().join(&device).join("driver")).unwrap();
        patient.put("sys/kernel/iommu_groups/7/type", "DMA");
        patient.put("sys/module/vfio_pci/version", "1");
        patient
            .put("proc/self/limits", "Limit  Soft  Hard  Units\nMax locked memory         unlimited            unlimited            bytes");
        patient.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc");
        patient.put("run/systemd/timesync/synchronized", "");
        patient
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn pages(&self, node: u32, whole: u32, free: u32) {
        let folder = format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
        self.put(&format!("{folder}/nr_hugepages"), &whole.to_string());
        self.put(&format!("{folder}/free_hugepages"), &free.to_string());
    }

    fn config(&self, more: &str) -> Config {
        let state = self.0.path().join("state.json");
        let text = format!(
            "[[port]]\nname = \"lan\"\ndevice = \"{NIC}\"\n[workers]\ncores = [4, 5]\n[control]\ncore = 0\nstate = \"{}\"\n{more}",
            state.display()
        );
        crate::config::parse(&text, Path::new("baton.toml"), &[0, 1, 4, 5, 6]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// What is not as it should be, while a director runs.
    fn complaints(&self, config: &Config) -> Vec<String> {
        let found = examine(config, &[0, 1, 4, 5, 6], self.0.path(), Some(&[]));
        found.iter().filter(|finding| finding.level != Level::Ok).map(ToString::to_string).collect()
    }

    fn says(&self, wanted: &[&str]) {
        let complaints = self.complaints(&self.config(""));
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        for part in wanted {
            assert!(complaints[0].contains(part), "{part} is not in {}", complaints[0]);
        }
    }
}

#[test]
fn machine_as_it_should_be_has_nothing_to_complain_of() {
    let patient = Patient::healthy();
    assert_eq!(patient.complaints(&patient.config("")), [] as [String; 0]);
    let lines: Vec<String> =
        examine(&patient.config(""), &[0, 4, 5], patient.0.path(), Some(&[])).iter().map(ToString::to_string).collect();
    for wanted in
        ["OK    hugepages of NUMA node 1: 1024 MiB, 1000 MiB of them free", "OK    port lan: 0000:03:00.0, driver vfio-pci, NUMA node 1"]
    {
        assert!(lines.iter().any(|line| line == wanted), "{wanted} is not in {lines:#?}");
    }
}

#[test]
fn each_fault_is_named_with_the_command_that_mends_it() {
    let patient = Patient::healthy();
    patient.pages(1, 0, 0);
    patient.says(&["WARN  hugepages of NUMA node 1", "a NIC is on this node", "echo ", "node1/hugepages/hugepages-2048kB/nr_hugepages"]);

    let patient = Patient::healthy();
    fs::remove_dir_all(patient.0.path().join("sys/kernel/iommu_groups")).unwrap();
    patient.says(&["FAIL  IOMMU", "intel_iommu=on"]);
    patient.put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y");
    patient.says(&["WARN  IOMMU", "may write anywhere"]);

    let patient = Patient::healthy();
    fs::remove_dir_all(patient.0.path().join("sys/module/vfio_pci")).unwrap();
    patient.says(&["FAIL  vfio", "mend: modprobe vfio-pci"]);

    let patient = Patient::healthy();
    patient.put(&format!("sys/bus/pci/devices/{NIC}/numa_node"), "0");
    patient.says(&["WARN  port lan", "workers on cores 4-5 are on another node", "workers.cores among 0-3"]);

    let patient = Patient::healthy();
    patient.put("sys/devices/system/cpu/isolated", "5");
    patient.says(&["WARN  core isolation", "isolcpus=4 nohz_full=4 rcu_nocbs=4"]);

    let patient = Patient::healthy();
    patient.put("sys/devices/system/cpu/cpu4/topology/thread_siblings_list", "4-5");
    patient.says(&["WARN  cores", "workers on 4 and 5 are hyper-threads of one core"]);

    let patient = Patient::healthy();
    patient.put("sys/devices/system/cpu/cpu5/cpufreq/scaling_governor", "powersave");
    patient.says(&["WARN  governor: powersave on cores 5", "cpupower -c 5 frequency-set -g performance"]);

    let patient = Patient::healthy();
    patient.put("state.json", "{");
    patient.says(&["FAIL  state file", "is not whole", "state.json.history/*.json"]);

    let patient = Patient::healthy();
    patient.put("state.json", r#"{"revision": 7, "services": [], "history": []}"#);
    assert_eq!(patient.complaints(&patient.config("")), [""; 0], "a state file has its history in it");

    let patient = Patient::healthy();
    patient.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
    patient.says(&["WARN  clock", "hpet"]);
}

#[test]
fn too_few_huge_pages_in_all_are_a_failure() {
    let patient = Patient::healthy();
    patient.pages(0, 8, 8);
    patient.pages(1, 8, 8);
    let complaints = patient.complaints(&patient.config(""));
    assert!(
        complaints.iter().any(|line| line.starts_with("FAIL  hugepages: 32 MiB in all") && line.contains("sysctl -w vm.nr_hugepages="))
    );
    assert!(!patient.complaints(&patient.config("[eal]\nno_huge = true\n")).iter().any(|line| line.contains("hugepages")));
}

#[test]
fn limit_of_locked_memory_matters_before_the_start() {
    let patient = Patient::healthy();
    patient.put("proc/self/limits", "Max locked memory         67108864             67108864             bytes");
    let config = patient.config("");
    let found = |ports: Option<&[Port]>| {
        let found = examine(&config, &[0, 1], patient.0.path(), ports);
        found.into_iter().find(|finding| finding.about == "memlock").map(|finding| finding.to_string()).unwrap()
    };
    let before = found(None);
    assert!(before.starts_with("WARN  memlock: 67108864 bytes") && before.contains("LimitMEMLOCK=infinity"), "{before}");
    assert_eq!(found(Some(&[])), "OK    memlock: enough for the director that runs");
}

#[test]
fn before_the_start_the_doctor_says_what_the_start_would() {
    let patient = Patient::healthy();
    let config = patient.config("");
    let found = examine(&config, &[0, 1], patient.0.path(), None);
    let refused = preflight::check(&config, &[0, 1]).unwrap_err();
    assert!(found.iter().any(|finding| finding.text == refused.what && finding.mend.as_ref() == Some(&refused.mend)), "{found:#?}");
}

#[test]
fn bare_root_is_no_panic() {
    let empty = tempfile::tempdir().unwrap();
    let patient = Patient::healthy();
    assert!(!examine(&patient.config(""), &[0], empty.path(), Some(&[])).is_empty());
}
