"""Debian's ldirectord, which speaks to the kernel's IPVS through ipvsadm, manages a service here without knowing the difference."""

import shlex
import time

import pytest
from networks import counted

from lab import VIP, count_servers

CONFIGURATION = """checktimeout = 2
negotiatetimeout = 2
checkinterval = 1
failurecount = 1
autoreload = no
quiescent = {quiescent}
logfile = "{folder}/ldirectord.log"
virtual = {virtual}
{real_servers}
    service = http
    checktype = negotiate
    checkport = 80
    request = "/"
    receive = "rs"
    scheduler = {scheduler}
    protocol = {protocol}
"""


class Ldirectord:
    """ldirectord in the foreground on the director; /sbin/ipvsadm, where it looks first, is our program there and nowhere else."""

    def __init__(self, network, virtual=f"{VIP}:80", protocol="tcp", port=80, scheduler="rr", quiescent="no"):
        self.host = network.director.host
        self.folder = self.host.folder / "ldirectord"
        self.folder.mkdir(exist_ok=True)
        reals = "\n".join(f"    real = {server.address}:{port} gate" for server in network.servers)
        self.file = self.folder / "ldirectord.cf"
        self.file.write_text(CONFIGURATION.format(
            quiescent=quiescent, folder=self.folder, virtual=virtual, real_servers=reals, scheduler=scheduler, protocol=protocol))
        self.process = None

    def __enter__(self):
        program = shlex.quote(str((self.host.lab.bin / "ipvsadm").resolve()))
        line = f"mkdir -p /run/lock && mount --bind {program} /sbin/ipvsadm && exec ldirectord -d {shlex.quote(str(self.file))} start"
        self.process = self.host.start(["/bin/sh", "-c", line], log=self.folder / "said.log")
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def said(self):
        """What it printed, for a failure."""
        return (self.folder / "said.log").read_text(errors="replace")[-4000:]


def listed(network):
    """Real servers with their weights, as ipvsadm lists them."""
    rows = [line.split() for line in network.director.ipvsadm("-Ln").splitlines() if line.startswith("  -> 10.")]
    return {row[1].rsplit(":", 1)[0]: int(row[3]) for row in rows}


def wait_for(ldirectord, network, wanted):
    """Waits until the service has exactly these real servers and weights."""
    until = time.monotonic() + 40
    while (now := listed(network)) != wanted:
        assert ldirectord.process.poll() is None, f"ldirectord ended:\n{ldirectord.said()}"
        assert time.monotonic() < until, f"listed: {now}, wanted: {wanted}\n{ldirectord.said()}"
        time.sleep(0.2)


def web_dies(server):
    """The real server's nginx ends; the machine stays."""
    pid = (server.folder / "nginx" / "nginx.pid").read_text().strip()
    server.run(f"kill {pid}")


def web_returns(server):
    """nginx serves again."""
    server.start(["nginx", "-c", str(server.folder / "nginx" / "nginx.conf")])


@pytest.mark.parametrize("quiescent, dead", [("no", None), ("yes", 0)], ids=["removes", "quiesces"])
def test_ldirectord_manages_a_service_through_a_real_servers_death_and_return(classic, quiescent, dead):
    all_up = {server.address: 1 for server in classic.servers}
    with Ldirectord(classic, quiescent=quiescent) as ldirectord:
        wait_for(ldirectord, classic, all_up)
        assert f"TCP  {VIP}:80 rr" in classic.director.ipvsadm("-Ln")
        assert counted(classic, count_servers(classic.client, VIP, 30)) == [10, 10, 10]

        gone = classic.servers[1]
        web_dies(gone)
        left = {address: weight for address, weight in all_up.items() if address != gone.address}
        wait_for(ldirectord, classic, left if dead is None else {**left, gone.address: dead})
        assert counted(classic, count_servers(classic.client, VIP, 30)) == [15, 0, 15]

        web_returns(gone)
        wait_for(ldirectord, classic, all_up)
        assert counted(classic, count_servers(classic.client, VIP, 30)) == [10, 10, 10]
    # Told to end, it takes its service with it.
    assert "->" not in classic.director.ipvsadm("-Ln").split("RemoteAddress", 1)[1].removeprefix(":Port")
    assert classic.director.api.get("services")["services"] == [], ldirectord.said()


def test_ldirectord_manages_a_service_by_mark(classic):
    classic.director.run(f"baton marks add 7 --destination {VIP} --protocol tcp --ports 80")
    all_up = {server.address: 1 for server in classic.servers}
    with Ldirectord(classic, virtual="7", protocol="fwm", port=0) as ldirectord:
        wait_for(ldirectord, classic, all_up)
        assert "FWM  7 rr\n" in classic.director.ipvsadm("-Ln")
        assert counted(classic, count_servers(classic.client, VIP, 30)) == [10, 10, 10]
