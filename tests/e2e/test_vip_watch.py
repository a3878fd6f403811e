"""The watch over VIPs: a real server that answers ARP or neighbour discovery for a VIP is found, named and put into quarantine; a VIP that another
machine has is not taken."""

import json
import socket
import time

import pytest
from networks import classic_network, configure, text

from lab import VIP, VIP6, frames
from lab.topology import DIRECTOR_MAC

OTHER = "10.10.24.89"


def eventually(what, seconds=15):
    """What `what` gives, as soon as that is true."""
    until = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def watched():
    with classic_network(more='[watch]\ninterval = "1s"\narp_leak = "quarantine"\nquiet = 2\n') as network:
        yield network


def leak(server, vip, begin):
    """Makes a real server answer for the VIP, or ends it."""
    if ":" in vip:
        # IPv6 answers for what is on the interface itself.
        server.ip(f"address {'add' if begin else 'del'} {vip}/128 dev eth0{' nodad' if begin else ''}")
    else:
        for key in ("all", "eth0"):
            server.sysctl(f"net.ipv4.conf.{key}.arp_ignore", 0 if begin else 1)


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_real_server_that_answers_for_the_vip_is_found_named_quarantined_and_returns(watched, vip):
    director, leaking = watched.director, watched.servers[0]
    director.clear()
    configure(watched, vip)
    key = f"tcp:{text(vip)}:80"
    assert eventually(lambda: all(server["state"] == "ready" for server in director.api.service(key)["real_servers"]))
    assert "conflicts" not in director.api.service(key)
    leak(leaking, vip, True)
    try:
        state = eventually(lambda: next((s for s in director.api.service(key)["real_servers"] if s["state"] == "quarantined"), None))
        assert state, director.api.service(key)
        rip = leaking.address6 if ":" in vip else leaking.address
        assert state["address"] == rip and leaking.mac in state["reason"] and vip in state["reason"]
        [conflict] = director.api.service(key)["conflicts"]
        assert conflict["mac"] == leaking.mac and conflict["port"] == "lan" and conflict["real_server"] == rip
        shown = director.host.run(["baton", "get", "services"]).stdout
        assert f"{vip}: MAC {leaking.mac} on port lan answers for it too (real server {rip})" in shown
        [listed] = [one for one in json.loads(director.host.run(["baton", "get", "vips", "-o", "json"]).stdout) if one["address"] == vip]
        assert listed["state"] == "held" and listed["conflicts"]
        kinds = [event["kind"] for event in director.api.get("events")["events"]]
        assert "address-conflict" in kinds and "quarantine-began" in kinds
        metrics = director.api.raw("GET", "/metrics")[1]
        assert f'baton_vip_conflict{{vip="{vip}",port="lan",mac="{leaking.mac}",real_server="{rip}"}} 1' in metrics
        assert f'baton_vip_conflicts_total{{vip="{vip}",port="lan"}}' in metrics
        # What reaches the director goes to the others; where the router's requests go is what the fault puts at risk.
        watched.lab.router.ip(f"neigh replace {vip} lladdr {DIRECTOR_MAC} dev inside nud permanent")
        answers = {watched.client.run(["curl", "-s", "-m5", f"http://{text(vip)}/"]).stdout.strip() for _ in range(6)}
        assert answers and not any(leaking.name in answer for answer in answers), answers
    finally:
        leak(leaking, vip, False)
        watched.lab.router.run(["ip", "neigh", "del", vip, "dev", "inside"], check=False)
    assert eventually(lambda: all(server["state"] == "ready" for server in director.api.service(key)["real_servers"])), director.log()[-2000:]
    assert "conflicts" not in director.api.service(key)


def test_vip_is_announced_again_when_somebody_else_speaks_for_it(watched):
    director, leaking = watched.director, watched.servers[0]
    director.clear()
    configure(watched, VIP)
    neighbour = lambda: watched.lab.router.ip(f"neigh show {VIP}")
    watched.lab.router.run(["ping", "-c1", "-W2", VIP])
    assert DIRECTOR_MAC in neighbour()
    with leaking.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(frames.arp_request(VIP, VIP, leaking.mac))
    assert eventually(lambda: director.api.service(f"tcp:{VIP}:80").get("conflicts"))
    assert eventually(lambda: DIRECTOR_MAC in neighbour()), neighbour()


def test_released_real_server_gets_connections_although_it_still_answers(watched):
    director, leaking = watched.director, watched.servers[0]
    director.clear()
    configure(watched, VIP)
    key = f"tcp:{VIP}:80"
    states = lambda: [server["state"] for server in director.api.service(key)["real_servers"]]
    leak(leaking, VIP, True)
    try:
        assert eventually(lambda: states()[0] == "quarantined")
        director.host.run(["baton", "release", key, leaking.address])
        assert states()[0] == "ready"
        time.sleep(1.5)
        assert states()[0] == "ready" and director.api.service(key)["conflicts"]
    finally:
        leak(leaking, VIP, False)


def test_vip_that_another_machine_has_is_taken_when_it_is_free(watched):
    director, router = watched.director, watched.lab.router
    director.clear()
    router.ip(f"address add {OTHER}/32 dev inside")
    try:
        director.ipvsadm(f"-A -t {OTHER}:80 -s rr")
        service = eventually(lambda: (found := director.api.service(f"tcp:{OTHER}:80")).get("vip") == "contested" and found)
        assert service and service["conflicts"][0]["mac"], director.api.service(f"tcp:{OTHER}:80")
        shown = director.host.run(["baton", "get", "services"]).stdout
        assert f"{OTHER}: not taken, because another machine has it" in shown
        watched.servers[0].run(["ping", "-c1", "-W2", OTHER])
        assert DIRECTOR_MAC not in watched.servers[0].ip(f"neigh show {OTHER}"), "the other one alone answers"
    finally:
        router.ip(f"address del {OTHER}/32 dev inside")
    assert eventually(lambda: "vip" not in director.api.service(f"tcp:{OTHER}:80"))
    watched.servers[0].run(["ping", "-c1", "-W2", OTHER])


def test_vip_that_another_machine_has_is_taken_by_command(watched):
    director, router = watched.director, watched.lab.router
    director.clear()
    router.ip(f"address add {OTHER}/32 dev inside")
    try:
        director.ipvsadm(f"-A -t {OTHER}:80 -s rr")
        assert eventually(lambda: director.api.service(f"tcp:{OTHER}:80").get("vip") == "contested")
        director.host.run(["baton", "vips", "take", OTHER])
        assert "vip" not in director.api.service(f"tcp:{OTHER}:80")
        assert director.api.service(f"tcp:{OTHER}:80")["conflicts"], "and it is still told who has it"
    finally:
        router.ip(f"address del {OTHER}/32 dev inside")
