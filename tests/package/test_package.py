"""The package: what lintian says of it, what it puts where, and what upgrade, removal and purge keep."""

import shutil
import subprocess

import pytest
from machine import Machine, command, package

from lab.topology import REPOSITORY


@pytest.fixture
def machine():
    """A Debian on which the package is installed, not booted."""
    with Machine() as machine:
        machine.run("dpkg -i /baton.deb")
        yield machine


def state(machine):
    return machine.root / "var" / "lib" / "baton" / "state.json"


def test_lintian_finds_nothing():
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", str(package())], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def test_everything_is_in_its_place(machine):
    assert machine.run("id -un baton; stat -c '%U %a' /var/lib/baton; stat -c %U /etc/baton/baton.toml").split() == ["baton", "baton", "750", "root"]
    assert machine.run("baton --version").startswith("baton ")
    assert "ipvsadm" in machine.run("/usr/libexec/baton/ipvsadm --help")
    assert "0000:03:00.0" in machine.run("baton check --config /etc/baton/baton.toml; cat /etc/baton/baton.toml")
    assert machine.run("cat /var/lib/dpkg/info/baton.conffiles").split() == ["/etc/baton/baton.toml"]
    for file in ("man/man8/baton.8.gz", "man/man5/baton.toml.5.gz", "bash-completion/completions/baton", "zsh/vendor-completions/_baton",
                 "fish/vendor_completions.d/baton.fish"):
        assert (machine.root / "usr" / "share" / file).is_file(), file
    assert machine.run("systemctl is-enabled baton || true").strip() == "disabled", "it waits for a configuration"


def test_drivers_come_with_it(machine):
    assert "librte_net_af_packet" in machine.run("ls /usr/lib/x86_64-linux-gnu/dpdk/pmds-*")
    assert "librte_mempool_ring" in machine.run("ls /usr/lib/x86_64-linux-gnu/dpdk/pmds-*")


def test_upgrade_keeps_configuration_and_state(machine):
    config = machine.root / "etc" / "baton" / "baton.toml"
    config.write_text("# mine\n")
    state(machine).write_text("{}")
    machine.run("systemctl enable baton && dpkg --force-confold -i /next.deb")
    assert config.read_text() == "# mine\n" and state(machine).read_text() == "{}"
    assert machine.run("systemctl is-enabled baton; dpkg-query -W -f '${Version}' baton").split() == ["enabled", "99.0"]


def test_upgrade_brings_a_new_configuration_where_nobody_changed_it(machine):
    machine.run("dpkg -i /next.deb")
    assert "# new in 99.0" in (machine.root / "etc" / "baton" / "baton.toml").read_text()


def test_removal_keeps_what_purge_deletes(machine):
    state(machine).write_text("{}")
    machine.run("systemctl enable baton baton-bind@0000:03:00.0 && dpkg --remove baton")
    assert state(machine).exists() and (machine.root / "etc" / "baton" / "baton.toml").exists()
    assert not (machine.root / "usr" / "bin" / "baton").exists()
    machine.run("dpkg --purge baton")
    assert not state(machine).parent.exists() and not (machine.root / "etc" / "baton").exists()
    left = machine.run("find /etc /usr /lib/systemd /var/lib -name '*baton*' -not -path '/var/lib/dpkg/*'").split()
    assert left == [], "purge leaves nothing but the user"


def test_units_are_without_fault_and_hardened(machine):
    units = machine.root / "lib" / "systemd" / "system"
    # In the name of an instance, systemd-analyze would take a colon for its own.
    shutil.copy(units / "baton-bind@.service", machine.root / "etc" / "systemd" / "system" / "baton-bind@nic.service")
    machine.run("systemd-analyze verify --man=no /lib/systemd/system/baton.service /etc/systemd/system/baton-bind@nic.service")
    machine.run("systemd-analyze security --offline=yes --threshold=30 /lib/systemd/system/baton.service")
    machine.run("systemd-analyze security --offline=yes --threshold=45 /etc/systemd/system/baton-bind@nic.service")


class Nic:
    """A NIC as sysfs shows it, for the script that binds one."""

    def __init__(self, folder, driver="e1000e", iommu=True, routes=""):
        self.folder = folder
        device = folder / "sys" / "bus" / "pci" / "devices" / "0000:03:00.0"
        (device / "net" / "eth7").mkdir(parents=True)
        (device / "class").write_text("0x020000\n")
        (folder / "drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(folder / "drivers" / driver)
        if iommu:
            (device / "iommu_group").symlink_to("../../../../kernel/iommu_groups/12")
        (folder / "proc" / "net").mkdir(parents=True)
        (folder / "proc" / "net" / "route").write_text(routes)
        (folder / "proc" / "net" / "ipv6_route").write_text("")
        self.device = device

    def bind(self, *words):
        env = {"BATON_SYS": self.folder / "sys", "BATON_PROC": self.folder / "proc", "BATON_DEV": self.folder / "dev", "PATH": "/usr/bin:/bin"}
        script = REPOSITORY / "configs" / "baton-bind"
        return subprocess.run([script, *(words or ["0000:03:00.0"])], env={k: str(v) for k, v in env.items()}, capture_output=True, text=True, check=False)


def test_nic_without_iommu_is_left_alone(tmp_path):
    nic = Nic(tmp_path, iommu=False)
    done = nic.bind()
    assert done.returncode == 1 and "intel_iommu=on" in done.stderr and not (nic.device / "driver_override").exists()


def test_nic_that_the_default_route_goes_by_is_left_alone(tmp_path):
    nic = Nic(tmp_path, routes="Iface\tDestination\tGateway\neth7\t00000000\t01181A0A\n")
    done = nic.bind()
    assert done.returncode == 1 and "ip route delete default dev eth7" in done.stderr and not (nic.device / "driver_override").exists()


def test_device_that_is_not_there_is_named_with_those_that_are(tmp_path):
    done = Nic(tmp_path).bind("0000:09:00.0")
    assert done.returncode == 1 and "0000:09:00.0: there is no such PCI device; network devices here: 0000:03:00.0" in done.stderr


def test_package_names_what_it_needs():
    depends = command(["dpkg-deb", "--field", package(), "Depends"])
    assert "librte-eal" in depends and "librte-mempool-ring" in depends and "librte-bus-pci" in depends
