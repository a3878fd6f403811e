"""The service under systemd: start, restart, crash, hang, upgrade."""

import json
import re
import shlex

import pytest
from machine import Machine

from lab.director import cores

SERVICE = "/usr/libexec/baton/ipvsadm -A -t 10.10.24.88:80 -s rr"


def configuration():
    """Of the package's example for a machine without a NIC, with the cores of this machine."""
    control, [worker] = cores(1)
    return (f"sed -e 's/^cores = .*/cores = [{worker}]/' -e 's/^core = .*/core = {control}/' /usr/share/doc/baton/examples/baton-vdev.toml "
            "> /etc/baton/baton.toml")


@pytest.fixture(scope="module")
def booted():
    """A Debian that is up, on which the package was installed and the service was started."""
    with Machine() as machine:
        machine.boot()
        machine.run("dpkg --force-confold -i /baton.deb")
        assert machine.run("systemctl is-active baton || true").strip() == "inactive", "nothing starts before it is configured"
        machine.run(configuration())
        machine.run("systemctl enable --now baton || { journalctl -b -u baton --no-pager; exit 1; }")
        yield machine


@pytest.fixture
def machine(booted):
    """With a service that runs, and no virtual services."""
    booted.run("systemctl reset-failed baton; systemctl start baton && /usr/libexec/baton/ipvsadm -C")
    return booted


def shown(machine, key):
    return machine.run(f"systemctl show --property={key} --value baton").strip()


def services(machine):
    return [service["id"] for service in json.loads(machine.run("baton get services -o json"))["services"]]


def test_it_runs_as_its_own_user_with_the_unit_s_capabilities_only(machine):
    status = machine.run(f"cat /proc/{shown(machine, 'MainPID')}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == machine.run("id -u baton").strip()
    # NET_ADMIN, NET_RAW, IPC_LOCK
    assert fields["CapEff"] == fields["CapBnd"] == "0000000000007000"
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert machine.run("stat -c '%U %a' /run/baton/baton.sock").split() == ["baton", "660"]
    assert "connections" in shown(machine, "StatusText")


def test_services_outlive_a_restart(machine):
    machine.run(SERVICE)
    machine.run("systemctl restart baton")
    assert services(machine) == ["tcp:10.10.24.88:80"]


def test_crash_is_followed_by_a_start(machine):
    before = shown(machine, "MainPID")
    machine.run(SERVICE)
    machine.run("systemctl kill --signal=KILL --kill-who=main baton")
    machine.wait(f"systemctl is-active baton && test $(systemctl show --property=MainPID --value baton) != {before}")
    assert services(machine) == ["tcp:10.10.24.88:80"]


def test_hang_is_followed_by_a_start(machine):
    before = shown(machine, "MainPID")
    machine.run("systemctl kill --signal=STOP --kill-who=main baton")
    machine.wait(f"systemctl is-active baton && test $(systemctl show --property=MainPID --value baton) != {before}")
    assert "watchdog" in machine.run("journalctl -b -u baton --no-pager").lower()


def test_upgrade_starts_the_new_version_with_the_services_of_the_old(machine):
    before = shown(machine, "MainPID")
    machine.run(SERVICE)
    machine.run("dpkg --force-confold -i /next.deb")
    assert shown(machine, "ActiveState") == "active" and shown(machine, "MainPID") != before
    assert services(machine) == ["tcp:10.10.24.88:80"]


def test_programs_are_checks_with_the_drop_in_and_refused_by_name_without(machine):
    # What it runs as and may do is what the check finds out; the service has no address that could be asked otherwise.
    unprivileged = 'test "$(id -un)" = nobody && grep -q "^CapEff:.0*$" /proc/self/status'
    document = {"services": [{"protocol": "tcp", "address": "10.10.24.88", "port": 80,
                              "health": {"type": "exec", "command": ["/bin/sh", "-c", unprivileged], "interval": "1s"},
                              "real_servers": [{"address": "10.10.24.21", "port": 80}]}]}
    apply = f"echo {shlex.quote(json.dumps(document))} | baton apply -f - 2>&1"
    assert "exec-checks.conf" in machine.run(apply, check=False)
    assert not services(machine)
    [install, restart] = re.findall(r"^#   (\S.*)", machine.run("cat /usr/share/doc/baton/examples/exec-checks.conf"), re.M)
    machine.run(f"{install} && {restart}")
    try:
        machine.run(apply)
        machine.wait("baton get services -o json | grep -Eq '\"state\": *\"up\"'", 20)
    finally:
        machine.run("/usr/libexec/baton/ipvsadm -C; rm -r /etc/systemd/system/baton.service.d && systemctl daemon-reload && systemctl restart baton", check=False)


def test_faulty_configuration_is_refused_with_its_faults_in_the_journal(machine):
    machine.run("systemctl stop baton; sed -i 's/^name = .*/nom = \"lan\"/' /etc/baton/baton.toml")
    try:
        assert "started" in machine.run("systemctl start baton && echo || echo not started")
        assert "nom" in machine.run("journalctl -b -u baton --no-pager | tail -n 30")
    finally:
        machine.run(f"systemctl stop baton; {configuration()}")


def test_removal_stops_it(machine):
    pid = shown(machine, "MainPID")
    machine.run("dpkg --remove baton")
    assert not machine.run(f"ls -d /proc/{pid} 2>/dev/null || true")
    machine.run("dpkg --force-confold -i /baton.deb")
