"""Connection entries: kept to their real server whatever happens to weights, listed, flushed."""

import random
import subprocess
import time

import pytest
from networks import configure, counted

from lab import VIP, KeepAlive, count_servers
from lab.load import WrkResult, ask_udp, connect, wrk_words

KEPT_REQUESTS, KEPT_CONNECTIONS = 100_000, 100


def test_hundred_thousand_requests_keep_their_real_server_while_weights_change(classics):
    configure(classics, VIP, "wlc")
    load = classics.client.start(wrk_words(VIP, 10, 20), stdout=subprocess.PIPE, text=True)
    choose = random.Random(24)
    changes = 0
    with KeepAlive(classics.client, VIP, KEPT_CONNECTIONS) as clients:
        while clients.requests < KEPT_REQUESTS and not clients.failures:
            clients.round()
            if clients.requests % (50 * KEPT_CONNECTIONS) == 0:
                weights = choose.choice([(0, 1, 5), (1, 0, 0), (3, 0, 1), (100, 50, 1), (0, 0, 7)])
                for server, weight in zip(classics.servers, weights):
                    classics.director.ipvsadm(f"-e -t {VIP}:80 -r {server.address} -g -w {weight}")
                changes += 1
        assert clients.failures == []
        assert clients.requests == KEPT_REQUESTS
        assert set(clients.servers.values()) == {"rs1", "rs2", "rs3"}
    assert changes == KEPT_REQUESTS // (50 * KEPT_CONNECTIONS)
    result = WrkResult(load.communicate(timeout=30)[0])
    assert result.requests > 0 and result.failed == 0, result.text


def test_new_connections_under_changing_weights_never_fail(classics):
    configure(classics, VIP, "wrr")
    load = classics.client.start(wrk_words(VIP, 3, 10, close=True), stdout=subprocess.PIPE, text=True)
    choose = random.Random(88)
    while load.poll() is None:
        # Some real server has a weight at every moment: the one that keeps it is changed first.
        weights = [1 + choose.randrange(3), choose.randrange(4), choose.randrange(4)]
        for server, weight in zip(choose.sample(classics.servers, 3), weights):
            classics.director.api.patch(f"services/tcp:{VIP}:80/real-servers/{server.address}:80", {"weight": weight})
    result = WrkResult(load.communicate(timeout=30)[0])
    assert result.requests > 100 and result.failed == 0, result.text


def test_listing_shows_state_and_remaining_time(classic):
    configure(classic, VIP)
    with connect(classic.client, VIP) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        connection.recv(4096)
        [entry] = classic.director.api.connections()
        assert entry["state"] == "ESTABLISHED" and 890 < entry["expires_in"] <= 900
        assert entry["virtual"] == f"{VIP}:80" and entry["client"].endswith(f":{connection.getsockname()[1]}")
        assert entry["server"] in {f"{server.address}:80" for server in classic.servers}
        [row] = classic.director.ipvsadm("-lnc").splitlines()[2:]
        assert row.split()[0] == "TCP" and row.split()[2] == "ESTABLISHED" and row.split()[1].startswith(("14:", "15:"))
        server = classic.director.api.real_server(f"tcp:{VIP}:80", entry["server"])
        assert (server["active_connections"], server["inactive_connections"]) == (1, 0)
    count_servers(classic.client, VIP, 1)
    until = time.monotonic() + 2
    entries = []
    while [entry["state"] for entry in entries] != ["FIN_WAIT"] * 2 and time.monotonic() < until:
        time.sleep(0.02)
        entries = classic.director.api.connections()
    assert [entry["state"] for entry in entries] == ["FIN_WAIT"] * 2
    assert all(110 < entry["expires_in"] <= 120 for entry in entries)


def test_udp_entry_ends_after_its_timeout(classic):
    configure(classic, VIP, flag="-u", port=53)
    classic.director.run("baton settings set timeout_udp=1")
    ask_udp(classic.client, VIP)
    assert len(classic.director.api.connections()) == 1
    until = time.monotonic() + 10
    while classic.director.api.connections() and time.monotonic() < until:
        time.sleep(0.1)
    assert classic.director.api.connections() == []
    servers = classic.director.api.service(f"udp:{VIP}:53")["real_servers"]
    assert all(server["inactive_connections"] == 0 for server in servers)


def test_flush_ends_the_entries_of_one_service_only(classic):
    configure(classic, VIP)
    configure(classic, VIP, flag="-u", port=53)
    count_servers(classic.client, VIP, 5)
    ask_udp(classic.client, VIP)
    said = classic.director.run(f"baton connections flush --service udp:{VIP}:53 --yes")
    assert "1" in said
    assert {entry["protocol"] for entry in classic.director.api.connections()} == {"tcp"}
    classic.director.run("baton connections flush --yes")
    assert classic.director.api.connections() == []


def test_listing_is_filtered_and_paged(classic):
    configure(classic, VIP)
    count_servers(classic.client, VIP, 12)
    api = classic.director.api
    page = api.get("connections?limit=5")
    assert len(page["connections"]) == 5 and page["total"] == 12 and page["next"]
    assert len(api.connections(limit=5)) == 12
    server = classic.servers[0].address
    assert [entry["server"] for entry in api.connections(server=server)] == [f"{server}:80"] * 4
    assert len(api.connections(client="203.0.113.10")) == 12 and api.connections(client="203.0.113.11") == []
    assert len(api.connections(service=f"tcp:{VIP}:80")) == 12


@pytest.mark.parametrize("expire, answered", [(0, False), (1, True)])
def test_connection_of_a_removed_real_server(classic, expire, answered):
    """expire_nodest_conn 0: its packets are dropped until the real server is back; 1: they are scheduled anew."""
    configure(classic, VIP, flag="-u", port=53)
    classic.director.run(f"baton settings set expire_nodest_conn={expire}")
    first = ask_udp(classic.client, VIP, source_port=25000)
    server = next(server for server in classic.servers if server.name == first)
    classic.director.ipvsadm(f"-d -u {VIP}:53 -r {server.address}")
    if answered:
        # The packet that finds the entry ended is dropped, as in the kernel; the next one is scheduled.
        try:
            second = ask_udp(classic.client, VIP, source_port=25000, timeout=0.3)
        except TimeoutError:
            second = ask_udp(classic.client, VIP, source_port=25000)
        assert second != first
    else:
        with pytest.raises(TimeoutError):
            ask_udp(classic.client, VIP, source_port=25000, timeout=0.3)
        classic.director.ipvsadm(f"-a -u {VIP}:53 -r {server.address} -g")
        assert ask_udp(classic.client, VIP, source_port=25000) == first


def test_zeroed_counters_start_again(classic):
    configure(classic, VIP)
    assert counted(classic, count_servers(classic.client, VIP, 3)) == [1, 1, 1]
    classic.director.ipvsadm("-Z")
    assert classic.director.api.service(f"tcp:{VIP}:80")["stats"]["connections"] == 0
    assert len(classic.director.api.connections()) == 3


def test_connection_outlives_the_service_that_is_removed_and_added_again(classic):
    """The new service has the same real servers at other weights, and another scheduler."""
    configure(classic, VIP)
    with connect(classic.client, VIP) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        connection.recv(65536)
        [before] = classic.director.api.connections()
        classic.director.ipvsadm(f"-D -t {VIP}:80")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(65536)
        assert classic.director.api.counters()["real_server_removed"] > 0
        configure(classic, VIP, "wlc", (0, 0, 0))
        connection.settimeout(5)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200"), "TCP sends what was dropped once more"
        [after] = classic.director.api.connections()
        assert after["server"] == before["server"] and after["state"] == "ESTABLISHED"
        server = classic.director.api.real_server(f"tcp:{VIP}:80", after["server"])
        assert (server["active_connections"], server["weight"]) == (1, 0)
