"""The operator's guide followed to the letter, and what then must hold: direct routing through NICs on vfio-pci, under an IOMMU and systemd."""

import time

from appliance import EDGE, EDGE_VIP, LAN, LAN_PORT, SERVERS, SPREAD, get, interrupts, port, ready, reconfigure, say, service, turns

from lab import VIP, VIP6, Capture, KeepAlive, count_servers
from lab.frames import arp_request


def distributed(site, *vips):
    """Whether every real server answers for each of the VIPs."""
    return all(set(count_servers(site.client, vip, 12)) == SERVERS for vip in vips)


def test_ten_commands_lead_to_the_first_packet(director):
    assert director.first_answer.strip() in SERVERS


def test_requests_are_distributed_over_all_real_servers(site, director):
    assert distributed(site, VIP, VIP6)


def test_device_is_vfio_s_behind_the_iommu(director):
    assert director.run(f"basename $(readlink /sys/bus/pci/devices/{LAN.pci}/driver)").strip() == "vfio-pci"
    assert director.run("ls /sys/class/iommu").split(), "there is an IOMMU"
    lan = get(director, "ports")[0]
    assert (lan["driver"], lan["mac"], lan["link_up"], lan["queues"]) == ("net_vmxnet3", LAN.mac, True, 2)


def test_connections_stay_with_their_real_server(site, director):
    with KeepAlive(site.client, VIP, 6) as connections:
        for _ in range(5):
            connections.round(timeout=60)
        assert not connections.failures and connections.requests == 30
        assert set(connections.servers.values()) == SERVERS


def test_doctor_finds_nothing_wrong(director):
    # A service whose real servers nobody checks is a warning.
    director.run(f"baton ipvsadm -D -t '[{VIP6}]:80'")
    director.wait('found=$(baton doctor) && ! { echo "$found" | grep -v "^OK "; }', longest=180)
    director.run(service(VIP6))


def test_link_that_goes_down_is_told_and_comes_back(site, director):
    say("cable pulled")
    director.set_link(LAN, False)
    director.wait("baton events --kind link-down | grep -q lan")
    assert not get(director, "ports")[0]["link_up"]
    assert director.try_run("curl -sf --unix-socket /run/baton/baton.sock http://localhost/readyz")[0] != 0
    director.set_link(LAN, True)
    director.wait("baton events --kind link-up | grep -q lan")
    ready(director)
    assert distributed(site, VIP, VIP6)


def test_restart_of_the_service_keeps_its_services(site, director):
    director.run("systemctl restart baton")
    ready(director)
    assert distributed(site, VIP, VIP6)


def test_reboot_brings_everything_back(site, director):
    say("reboot")
    director.reboot()
    ready(director)
    assert distributed(site, VIP, VIP6)


def test_rss_brings_flows_to_both_workers(site, director):
    say("service on the virtio NIC, two workers")
    reconfigure(director, [(SPREAD, port("lan", SPREAD, *LAN_PORT))], [1, 2])
    ready(director)
    before = [worker["verdicts"].get("forwarded", 0) for worker in get(director, "workers")]
    count_servers(site.client, VIP, 30)
    after = [worker["verdicts"].get("forwarded", 0) for worker in get(director, "workers")]
    assert get(director, "ports")[0]["rss"]
    assert all(now > then for then, now in zip(before, after, strict=True)), (before, after)


def members(director):
    """Of the bond's members: (whether it has a link, whether it carries the traffic)."""
    return [(member["link_up"], member["active"]) for member in get(director, "ports")[0]["members"]]


def until(what, longest=60):
    """Waits until this is so."""
    end = time.monotonic() + longest
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_announcement(frame):
    """Whether it is the director's gratuitous ARP for the VIP, straight from it; what fills the frame aside."""
    return not frame.outgoing and frame.bytes[:42] == arp_request(VIP, VIP, LAN.mac)[:42]


def test_members_of_a_bond_take_over_and_open_connections_go_on(site, director):
    say("service on a bond of the vmxnet3 and the e1000e")
    reconfigure(director, [([LAN, EDGE], port("lan", [LAN, EDGE], *LAN_PORT))], [1])
    ready(director)
    assert members(director) == [(True, True), (True, False)]
    assert distributed(site, VIP, VIP6)
    with KeepAlive(site.client, VIP, 6) as connections:
        connections.round(timeout=60)
        # Both ways: each driver tells of its link in another one.
        for active, other, states in ((LAN, EDGE, [(False, False), (True, True)]), (EDGE, LAN, [(True, True), (False, False)])):
            say(f"cable of {active.model} pulled")
            with Capture(site.switch, other.tap) as cable:
                director.set_link(active, False)
                cable.wait(is_announcement, timeout=60)
            assert members(director) == states
            connections.round(timeout=60)
            assert distributed(site, VIP, VIP6)
            director.set_link(active, True)
            until(lambda: all(link_up for link_up, _ in members(director)))
        assert not connections.failures and connections.requests == 18


def test_worker_that_waits_for_interrupts_sleeps_and_answers(site, director):
    say("service on the vmxnet3, whose worker waits for its interrupts")
    reconfigure(director, [(LAN, port("lan", LAN, *LAN_PORT))], [1], idle="interrupt")
    ready(director)
    assert not any("interrupts" in lack for lack in get(director, "ports")[0].get("lacks", []))
    before = interrupts(director, LAN)
    assert distributed(site, VIP, VIP6)
    assert interrupts(director, LAN) > before
    began, before = time.monotonic(), turns(director)
    time.sleep(2)
    # One that never rests turns a hundred times as often even here.
    assert 0 < (turns(director) - before) / (time.monotonic() - began) < 10_000


def test_requests_come_in_by_one_nic_and_leave_by_another(site, director):
    say("service on the e1000e and the vmxnet3, one worker")
    site.switch.ip(f"link set {EDGE.tap} netns {site.router.namespace}")
    site.router.ip(f"address add 10.10.25.1/24 dev {EDGE.tap}")
    site.router.ip(f"link set {EDGE.tap} up")
    site.client.ip("route add 10.10.25.0/24 via 203.0.113.1")
    reconfigure(director, [(LAN, port("lan", LAN, *LAN_PORT)), (EDGE, port("edge", EDGE, "10.10.25."))], [1], idle="interrupt")
    director.run(service(EDGE_VIP))
    ready(director)
    assert distributed(site, EDGE_VIP)
    ports = {listed["name"]: listed for listed in get(director, "ports")}
    assert ports["edge"]["driver"] == "net_e1000_em", ports
    assert ports["edge"]["rx_packets"] and ports["lan"]["tx_packets"]
    # This driver promises interrupts and has none: the worker sleeps, and says so.
    lacks = {name: [lack for lack in listed.get("lacks", []) if "interrupts" in lack] for name, listed in ports.items()}
    assert lacks["edge"] and not lacks["lan"], lacks
