"""Masquerading: real servers whose way to clients leads through the director, with one worker and with two."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from networks import classic_network, text

from lab import DIP, DIP6, VIP, VIP6, fetch
from lab.api import verdicts
from lab.load import ask_udp, connect, wrk
from lab.servers import file_content, udp_server
from lab.topology import CLIENT, CLIENT6

WEB, DNS = 8080, 5353


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def routed(request):
    """The classic network, but for the real servers' default route, which is the director."""
    with classic_network(request.param) as network:
        for server in network.servers:
            server.ip(f"route replace default via {DIP}")
            server.ip(f"route replace default via {DIP6}")
        yield network


@pytest.fixture
def network(routed):
    """Services on ports of their own, VIP:8080 and VIP:5353, for the real servers' 80 and 53."""
    routed.director.clear()
    for vip in (VIP, VIP6):
        for flag, port, real in (("-t", WEB, 80), ("-u", DNS, 53)):
            service = f"{flag} {text(vip)}:{port}"
            routed.director.ipvsadm(f"-A {service} -s rr")
            for server in routed.servers:
                routed.director.ipvsadm(f"-a {service} -r {text(server.address6 if ':' in vip else server.address)}:{real} -m")
    return routed


def get(network, vip, path="/"):
    """One request to the masqueraded web service; returns (server's name, body)."""
    with connect(network.client, vip, WEB) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return head.partition(b"X-Real-Server: ")[2].split()[0].decode(), body


def assert_nothing_lost(network):
    counters = network.director.api.settled_counters()
    assert counters["received"] == sum(verdicts(counters).values()), counters
    assert counters.get("handed_over", 0) == counters.get("taken_over", 0), counters
    return counters


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_real_servers_answer_as_the_vip(network, vip):
    before = assert_nothing_lost(network)
    answers = [get(network, vip) for _ in range(30)]
    assert {name for name, _ in answers} == {server.name for server in network.servers}
    assert all(body == f"{name}\n".encode() for name, body in answers)
    names = {ask_udp(network.client, vip, port=DNS, text=b"what") for _ in range(30)}
    assert names == {server.name for server in network.servers}
    counters = assert_nothing_lost(network)
    if network.workers > 1:
        assert counters.get("handed_over", 0) > before.get("handed_over", 0), "some answers arrive on the other worker"
    service = network.director.api.service(f"tcp:{text(vip)}:{WEB}")["stats"]
    assert service["connections"] == 30 and service["out_packets"] >= 30 * 3 and service["out_bytes"] > 30 * 200, service


def test_both_sides_move_the_state_and_listings_show_the_real_port(network):
    with connect(network.client, VIP, WEB):
        rows = network.director.ipvsadm("-Lnc").splitlines()[2:]
        assert [row.split()[2] for row in rows] == ["ESTABLISHED"] and rows[0].endswith(":80"), rows
    get(network, VIP)
    states = {entry["state"] for entry in network.director.api.connections()}
    assert "TIME_WAIT" in states, states
    assert " Masq    1 " in network.director.ipvsadm("-Ln")


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_real_servers_learn_of_a_narrow_way_to_the_client(network, vip):
    # The errors about the answers go to the VIP, and wherever RSS leads.
    network.lab.router.ip("link set outside mtu 1400")
    try:
        with ThreadPoolExecutor(4) as several:
            bodies = list(several.map(lambda _: get(network, vip, "/file")[1], range(8)))
    finally:
        network.lab.router.ip("link set outside mtu 1500")
    assert all(body == file_content() for body in bodies)
    for server in network.servers:
        server.ip(f"{'-6' if ':' in vip else '-4'} route flush cache")
    assert_nothing_lost(network)


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_client_learns_that_the_real_server_refuses(network, vip):
    service = f"-u {text(vip)}:{DNS}"
    for server in network.servers:
        rip = text(server.address6 if ":" in vip else server.address)
        network.director.ipvsadm(f"-d {service} -r {rip}:53", f"-a {service} -r {rip}:9 -m")
    with pytest.raises(ConnectionRefusedError):
        ask_udp(network.client, vip, port=DNS)


def test_a_connection_keeps_its_method_when_its_real_server_gets_another(network):
    of = f"-t {VIP}:80 -r {network.servers[0].address}:80"
    network.director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a {of} -m")
    with connect(network.client, VIP, 80) as connection:
        for method in ("-m", "-g", "-i", "-m", "-i"):
            network.director.ipvsadm(f"-e {of} {method}")
            connection.sendall(b"HEAD / HTTP/1.1\r\nHost: lab\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200"), method
    assert_nothing_lost(network)


def test_what_real_servers_send_of_their_own_goes_on_through_the_kernel(network):
    for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        network.director.host.sysctl("net." + name, 1)
    server = udp_server(network.client)
    try:
        for address in (CLIENT, CLIENT6):
            assert ask_udp(network.servers[0], address) == network.client.name
    finally:
        server.terminate()
        server.wait()


def test_methods_are_mixed_in_one_service(network):
    network.director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {network.servers[0].address}:80 -m",
                             f"-a -t {VIP}:80 -r {network.servers[1].address} -g")
    # The real server by direct routing answers by the router, past the director, which is its gateway otherwise.
    network.servers[1].ip("route replace default via 10.10.24.1")
    try:
        assert {fetch(network.client, VIP)[0] for _ in range(6)} == {server.name for server in network.servers[:2]}
    finally:
        network.servers[1].ip(f"route replace default via {DIP}")


def test_load_is_carried_without_failures(network):
    network.director.ipvsadm(f"-A -t {VIP}:80 -s rr", *(f"-a -t {VIP}:80 -r {server.address}:80 -m" for server in network.servers))
    result = wrk(network.client, VIP, seconds=2, connections=20, close=True)
    assert result.failed == 0 and result.requests > 100, result.text
    assert_nothing_lost(network)
