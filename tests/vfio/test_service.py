"""The operator's guide followed to the letter, and what then must hold: direct routing through NICs on vfio-pci, under an IOMMU and systemd."""

from appliance import EDGE, EDGE_VIP, LAN, LAN_PORT, SERVERS, SPREAD, get, port, ready, reconfigure, say, service

from lab import VIP, VIP6, KeepAlive, count_servers


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


def test_requests_come_in_by_one_nic_and_leave_by_another(site, director):
    say("service on the e1000e and the vmxnet3, one worker")
    site.switch.ip(f"link set {EDGE.tap} netns {site.router.namespace}")
    site.router.ip(f"address add 10.10.25.1/24 dev {EDGE.tap}")
    site.router.ip(f"link set {EDGE.tap} up")
    site.client.ip("route add 10.10.25.0/24 via 203.0.113.1")
    reconfigure(director, [(LAN, port("lan", LAN, *LAN_PORT)), (EDGE, port("edge", EDGE, "10.10.25."))], [1])
    director.run(service(EDGE_VIP))
    ready(director)
    assert distributed(site, EDGE_VIP)
    ports = {listed["name"]: listed for listed in get(director, "ports")}
    assert ports["edge"]["driver"] == "net_e1000_em", ports
    assert ports["edge"]["rx_packets"] and ports["lan"]["tx_packets"]
