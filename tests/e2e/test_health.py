"""Health checks as operators meet them: a real server that fails is taken out in time, the reason is said, and it comes back."""

import signal
import time

import pytest
from networks import counted

from lab import DIP, VIP, VIP6, count_servers
from lab.servers import web_server

KEY = f"tcp:{VIP}:80"


def service(network, health, vip=VIP, **more):
    """A virtual service over all real servers with these checks."""
    servers = [{"address": server.address6 if ":" in vip else server.address} for server in network.servers]
    spec = {"protocol": "tcp", "address": vip, "port": 80, "scheduler": "rr", "health": health, "real_servers": servers, **more}
    network.director.api.post("services", spec)


def health(network, server, vip=VIP):
    """What is said of a real server's health, with its state."""
    address = f"[{server.address6}]" if ":" in vip else server.address
    key = f"tcp:[{vip}]:80" if ":" in vip else f"tcp:{vip}:80"
    seen = network.director.api.real_server(key, f"{address}:80")
    return {**seen["health"], "effective": seen["state"]}


def becomes(network, server, state, within, vip=VIP):
    """Waits until a real server's health is `state`; what is said of it then."""
    until = time.monotonic() + within
    while (seen := health(network, server, vip))["state"] != state:
        assert time.monotonic() < until, f"{server.name} is not {state} after {within} s: {seen}"
        time.sleep(0.02)
    return seen


def all_up(network, vip=VIP):
    """Waits until every real server is up."""
    for server in network.servers:
        becomes(network, server, "up", 5, vip)


@pytest.fixture
def served(classic):
    """The classic network; whatever a test did to a real server is put back."""
    yield classic
    classic.lab.prepare()


def test_dead_real_server_is_out_in_time_and_comes_back(served):
    service(served, {"type": "http"})
    all_up(served)
    victim = served.servers[1]
    document = served.director.api.get("config")
    nginx = next(process for process in served.lab.processes if victim.namespace in " ".join(process.args) or _is_nginx_of(process, victim))
    began = time.monotonic()
    nginx.send_signal(signal.SIGTERM)
    seen = becomes(served, victim, "down", 10)
    assert time.monotonic() - began < 5
    assert "refuses connections" in seen["reason"] and seen["effective"] == "down"
    assert counted(served, count_servers(served.client, VIP, 10)) == [5, 0, 5]
    assert served.director.api.get("config") == document, "health changes nothing of the operator's configuration"
    assert victim.address in served.director.ipvsadm("-Sn")
    served.director.run("baton get services | grep -q 'refuses connections'")
    (victim.folder / "nginx").rename(victim.folder / f"nginx-{time.monotonic()}")
    web_server(victim)
    becomes(served, victim, "up", 10)
    assert counted(served, count_servers(served.client, VIP, 9)) == [3, 3, 3]


def _is_nginx_of(process, host):
    return str(host.enter) in process.args and "nginx" in process.args


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_real_server_without_the_vip_is_found_though_its_rip_answers(served, vip):
    service(served, {"type": "tcp", "interval": "200ms", "timeout": "200ms"}, vip)
    all_up(served, vip)
    victim = served.servers[0]
    victim.ip(f"address del {vip}/{128 if ':' in vip else 32} dev lo")
    seen = becomes(served, victim, "down", 5, vip)
    assert "RIP answers, VIP does not" in seen["reason"], seen
    assert counted(served, count_servers(served.client, vip, 6)) == [0, 3, 3]
    served.lab.prepare()
    becomes(served, victim, "up", 5, vip)


def test_check_to_the_rip_does_not_see_a_lost_vip(served):
    service(served, {"type": "tcp", "interval": "100ms", "via": "direct"})
    all_up(served)
    victim = served.servers[0]
    victim.ip(f"address del {VIP}/32 dev lo")
    time.sleep(1)
    assert health(served, victim)["state"] == "up"


def test_service_without_health_is_as_before(classic):
    servers = [{"address": server.address} for server in classic.servers]
    classic.director.api.post("services", {"protocol": "tcp", "address": VIP, "port": 80, "scheduler": "rr", "real_servers": servers})
    classic.servers[0].ip(f"address del {VIP}/32 dev lo")
    time.sleep(1)
    try:
        [first, *_] = classic.director.api.service(KEY)["real_servers"]
        assert "health" not in first and first["state"] == "ready"
        assert DIP in classic.director.run("baton get ports")
    finally:
        classic.lab.prepare()
