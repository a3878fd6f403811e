"""Two workers: flows spread over both, and a flow stays where it began."""

import collections

import pytest
from networks import classic_network, configure

from lab import VIP, VIP6, fetch
from lab.load import ask_udp
from lab.servers import file_content

FLOWS = 200


@pytest.fixture(scope="module", params=["af_packet", "tap"])
def two_workers(request):
    """Two workers on each kind of device that has several queues."""
    with classic_network(2, attach=request.param) as network:
        yield network


def by_client(network):
    """{client's port: (worker, server, packets)} of all entries."""
    entries = network.director.api.connections()
    found = {int(entry["client"].rpartition(":")[2]): (entry["worker"], entry["server"], entry["in_packets"]) for entry in entries}
    assert len(found) == len(entries), "a flow has entries on two workers"
    return found


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_flows_spread_over_both_workers_and_stay(two_workers, vip):
    two_workers.director.clear()
    configure(two_workers, vip, flag="-u", port=53)
    ports = range(20000, 20000 + FLOWS)
    answered = {port: ask_udp(two_workers.client, vip, source_port=port) for port in ports}
    first = by_client(two_workers)
    share = collections.Counter(worker for worker, _, _ in first.values())
    assert set(first) == set(ports)
    assert set(share) == {0, 1} and min(share.values()) >= FLOWS // 5, share
    for _ in range(3):
        assert {port: ask_udp(two_workers.client, vip, source_port=port) for port in ports} == answered
    again = by_client(two_workers)
    assert {port: entry[:2] for port, entry in again.items()} == {port: entry[:2] for port, entry in first.items()}
    assert {entry[2] for entry in again.values()} == {4}


def test_every_worker_runs_the_newest_version_when_a_write_is_answered(two_workers):
    two_workers.director.clear()
    for weight in range(1, 6):
        two_workers.director.api.put(f"services/tcp:{VIP}:80", {
            "protocol": "tcp", "address": VIP, "port": 80, "real_servers": [{"address": two_workers.servers[0].address, "weight": weight}]})
        assert len({worker["version"] for worker in two_workers.director.api.get("workers")}) == 1


def test_least_connections_are_those_of_both_workers(two_workers):
    two_workers.director.clear()
    configure(two_workers, VIP, "lc", flag="-u", port=53)
    for port in range(31000, 31060):
        ask_udp(two_workers.client, VIP, source_port=port)
    servers = two_workers.director.api.service(f"udp:{VIP}:53")["real_servers"]
    assert [server["inactive_connections"] for server in servers] == [20, 20, 20]
    assert min(worker["connections"] for worker in two_workers.director.api.get("workers")) > 0


def test_connections_are_counted_over_both_workers(two_workers):
    two_workers.director.clear()
    configure(two_workers, VIP, flag="-u", port=53)
    for port in range(30000, 30040):
        ask_udp(two_workers.client, VIP, source_port=port)
    servers = two_workers.director.api.service(f"udp:{VIP}:53")["real_servers"]
    assert sum(server["inactive_connections"] + server["active_connections"] for server in servers) == 40
    assert sum(worker["connections"] for worker in two_workers.director.api.get("workers")) == 40


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_errors_about_answers_reach_the_real_server_through_either_worker(two_workers, vip):
    two_workers.director.clear()
    configure(two_workers, vip)
    # The real servers' answers pass the router alone, whose errors about them go to the VIP, and wherever RSS leads.
    two_workers.lab.router.ip("link set outside mtu 1400")
    before = two_workers.director.api.counters().get("handed_over", 0)
    try:
        for _ in range(12):
            assert fetch(two_workers.client, vip, "/file")[1] == file_content()
            for server in two_workers.servers:
                server.ip(f"{'-6' if ':' in vip else '-4'} route flush cache")
    finally:
        two_workers.lab.router.ip("link set outside mtu 1500")
    counters = two_workers.director.api.settled_counters()
    assert counters["handed_over"] > before and counters["handed_over"] == counters["taken_over"], counters
