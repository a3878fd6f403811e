"""Two directors on one network, Debian's IPVS and Baton, each in a machine of its own: the same rules, the same clients, the same answers."""

import pytest
from appliance import LAN, LAN_PORT, SERVERS, Nic, port, ready, reconfigure, say

from lab import VIP, KeepAlive, fetch

# Each has a VIP of its own, so that both can be on one network.
VIPS = {"ipvs": "10.10.24.89", "baton": VIP}
TWIN = Nic("vmxnet3", bus=3, mac="02:10:10:10:20:10", tap="lan1")
RIPS = ["10.10.24.21", "10.10.24.22", "10.10.24.23"]
WEIGHTS = [3, 1, 2]


class Twins:
    """Both directors behind one router."""

    def __init__(self, site, guests):
        self.site = site
        self.guests = guests

    def each(self, *lines):
        """The same lines of ipvsadm's on both, VIP standing for the VIP of each; what they printed, with VIP in place of it: (IPVS's, Baton's)."""
        said = []
        for name, program in (("ipvs", "ipvsadm"), ("baton", "baton ipvsadm")):
            text = " && ".join(f"{program} {line.replace('VIP', VIPS[name])}" for line in lines)
            said.append(self.guests[name].run(text).replace(VIPS[name], "VIP"))
        return tuple(said)

    def rules(self, *lines):
        """These rules and no others, on both."""
        self.each("-C", *lines)
        ready(self.guests["baton"])

    def answers(self, source_ports):
        """Which real server answered each of the requests from these ports (0: any): (IPVS's, Baton's)."""
        client = self.site.client
        return tuple([fetch(client, VIPS[name], source_port=source, timeout=60)[0] for source in source_ports] for name in ("ipvs", "baton"))


@pytest.fixture(scope="module")
def twins(site, director):
    """The director on its vmxnet3, and beside it a guest on another one whose kernel is the director."""
    # Workers that poll take the processors from a kernel that measures its clocks.
    director.run("systemctl stop baton")
    with site.guest("ipvs", [TWIN], memory=1024, cpus=2) as ipvs:
        site.prepare(VIPS["ipvs"])
        ipvs.run(f"device=$(ls /sys/bus/pci/devices/{TWIN.pci}/net) && modprobe ip_vs && sysctl -qw net.ipv4.conf.all.rp_filter=0 && "
                 f"ip address add 10.10.24.11/24 dev $device && ip address add {VIPS['ipvs']}/32 dev $device && ip link set $device up && "
                 "ip route add default via 10.10.24.1")
        reconfigure(director, [(LAN, port("lan", LAN, *LAN_PORT))], [1, 2])
        yield Twins(site, {"ipvs": ipvs, "baton": director})


def members():
    """Lines that add all real servers with their weights."""
    return [f"-a -t VIP:80 -r {rip}:80 -g -w {weight}" for rip, weight in zip(RIPS, WEIGHTS, strict=True)]


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "wlc"])
def test_the_same_real_servers_answer_in_the_same_order(twins, scheduler):
    say(f"twins: {scheduler}")
    twins.rules(f"-A -t VIP:80 -s {scheduler}", *members())
    ipvs, baton = twins.answers([0] * 18)
    # What real servers have from the schedulers before counts for wlc, so that it may pass one over.
    assert ipvs == baton and len(set(ipvs)) > 1


def test_a_client_s_port_leads_to_the_same_real_server(twins):
    say("twins: mh by port")
    twins.rules("-A -t VIP:80 -s mh -b mh-port", *members())
    ipvs, baton = twins.answers(range(20001, 20019))
    # The VIP is no part of this hash.
    assert ipvs == baton and len(set(ipvs)) > 1


def test_persistence_keeps_a_client_with_both(twins):
    say("twins: persistence")
    twins.rules("-A -t VIP:80 -s rr -p 300", *members())
    ipvs, baton = twins.answers([0] * 6)
    assert ipvs == baton and len(set(ipvs)) == 1


def test_quiescent_server_keeps_its_connections_with_both(twins):
    say("twins: quiescent server")
    twins.rules("-A -t VIP:80 -s rr", *members())
    with KeepAlive(twins.site.client, VIPS["ipvs"], 3) as one, KeepAlive(twins.site.client, VIPS["baton"], 3) as other:
        for connections in (one, other):
            connections.round(timeout=60)
        twins.each(f"-e -t VIP:80 -r {RIPS[0]}:80 -g -w 0")
        for connections in (one, other):
            connections.round(timeout=60)
            assert not connections.failures and set(connections.servers.values()) == SERVERS
    ipvs, baton = twins.answers([0] * 6)
    assert set(ipvs) == set(baton) == SERVERS - {"rs1"}


def test_listings_are_the_same_but_for_counters_and_the_vip(twins):
    twins.rules("-A -t VIP:80 -s wrr -p 60", *members())
    ipvs, baton = twins.each("-Sn")
    assert ipvs == baton and ipvs.count("-a ") == 3
