"""What the director does when there is no real server, no room, or too much of everything."""

import time

import pytest
from networks import configure, counted

from lab import VIP, Capture, Director, config_text, count_servers
from lab.frames import tcp
from lab.load import ask_udp, connect

RIP, RIP_MAC = "10.10.24.21", "02:00:00:00:00:15"


@pytest.mark.parametrize("policy, raised", [("icmp", ConnectionRefusedError), ("reset", ConnectionRefusedError), ("drop", TimeoutError)])
def test_client_is_told_what_the_service_says_when_no_real_server_is_left(classic, policy, raised):
    configure(classic, VIP, weights=(0, 0, 0))
    classic.director.api.patch(f"services/tcp:{VIP}:80", {"no_real_server": policy})
    before = classic.director.api.counters()
    with pytest.raises(raised):
        connect(classic.client, VIP, timeout=1.5)
    after = classic.director.api.counters()
    moved = {name for name in ("no_real_server", "icmp_errors", "resets") if after.get(name, 0) > before.get(name, 0)}
    assert moved == {"no_real_server"} | {"icmp": {"icmp_errors"}, "reset": {"resets"}, "drop": set()}[policy]
    # It is part of the service as any other field: in its document, and over a later edit by ipvsadm.
    classic.director.ipvsadm(f"-E -t {VIP}:80 -s wlc")
    assert classic.director.api.service(f"tcp:{VIP}:80")["no_real_server"] == policy


def test_service_has_timeouts_of_its_own(classic):
    configure(classic, VIP, flag="-u", port=53)
    classic.director.api.patch(f"services/udp:{VIP}:53", {"timeouts": {"udp": 1}})
    ask_udp(classic.client, VIP)
    [entry] = classic.director.api.connections()
    assert entry["expires_in"] <= 1
    until = time.monotonic() + 10
    while classic.director.api.connections() and time.monotonic() < until:
        time.sleep(0.1)
    assert classic.director.api.connections() == []


def test_removed_real_servers_connections_end_at_once_when_they_are_to(classic):
    configure(classic, VIP)
    classic.director.run("baton settings set expire_nodest_conn=1")
    answers = count_servers(classic.client, VIP, 30)
    assert counted(classic, answers) == [10, 10, 10]
    classic.director.ipvsadm(f"-d -t {VIP}:80 -r {classic.servers[0].address}")
    until = time.monotonic() + 5
    while len(classic.director.api.connections()) != 20 and time.monotonic() < until:
        time.sleep(0.05)
    assert {entry["server"] for entry in classic.director.api.connections()} == {f"{s.address}:80" for s in classic.servers[1:]}


def test_drop_packet_is_in_force_and_shown(classic):
    configure(classic, VIP)
    classic.director.run("baton settings set drop_packet=3 am_droprate=2")
    shown = classic.director.run("baton get workers")
    assert "in force: drop_packet" in shown
    # A client whose SYN is dropped sends another one a second later.
    count_servers(classic.client, VIP, 2)
    assert classic.director.api.counters()["drop_packet"] >= 1


def test_syn_flood_keeps_no_new_client_out_and_takes_no_connection(lonely):
    """Ten times the half-open share, with established connections and new clients among it."""
    config = config_text(lonely.device, gateways=()).replace("connections = 262144", "connections = 1024")
    with Director(lonely.director, config) as director, Capture(lonely.peer, "p0") as cable:
        director.api.post("services", {"protocol": "tcp", "address": VIP, "port": 80, "scheduler": "rr",
                                       "real_servers": [{"address": RIP, "mac": RIP_MAC}]})
        for port in range(10000, 10050):
            cable.send(tcp("198.51.100.1", VIP, port, flags="S"))
            cable.send(tcp("198.51.100.1", VIP, port, flags="A"))
        director.api.settled_counters(received=100)
        for n in range(2560):
            cable.send(tcp(f"100.64.{n // 250}.{n % 250 + 1}", VIP, 1024 + n, flags="S"))
            if n % 64 == 63:
                time.sleep(0.002)
        cable.send(tcp("203.0.113.7", VIP, 4000, flags="S"))
        cable.send(tcp("203.0.113.7", VIP, 4000, flags="A"))
        counters = director.api.settled_counters(received=2662)
        states = [entry["state"] for entry in director.api.connections()]
        assert states.count("ESTABLISHED") == 51, "fifty from before, and the new client"
        assert states.count("SYN_RECV") <= 256
        assert "half_open_limit" not in counters and "table_full" not in counters
        [worker] = director.api.get("workers")
        assert worker["recycled"] >= 2560 - 256
        assert counters["forwarded"] == 2662
