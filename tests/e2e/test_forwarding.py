"""Direct routing, on real traffic: who answers, and what happens to the frames."""

import collections
import time

import pytest
from networks import configure, counted

from lab import PUBLIC, VIP, VIP6, Capture, KeepAlive, count_servers, fetch, wrk
from lab.api import verdicts
from lab.load import ask_udp
from lab.servers import file_content


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_round_robin_gives_each_real_server_its_share(classics, vip):
    configure(classics, vip)
    counts = counted(classics, count_servers(classics.client, vip, 30))
    # Workers share nothing, so each has its own turn.
    assert sum(counts) == 30
    assert all(abs(count - 10) <= 2 * (classics.workers - 1) for count in counts), counts


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_weights_two_and_four_give_one_to_two(classic, vip):
    configure(classic, vip, "wrr", (2, 4, 0))
    assert counted(classic, count_servers(classic.client, vip, 30)) == [10, 20, 0]


@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_least_connection_spreads_open_connections(classic, scheduler):
    configure(classic, VIP, scheduler, (1, 1, 1))
    with KeepAlive(classic.client, VIP, 12) as clients:
        clients.round()
        assert not clients.failures
        assert sorted(collections.Counter(clients.servers.values()).values()) == [4, 4, 4]


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_udp_is_forwarded_and_each_client_stays_with_its_real_server(classics, vip):
    configure(classics, vip, flag="-u", port=53)
    names = {port: ask_udp(classics.client, vip, source_port=port) for port in range(20001, 20013)}
    assert len(set(names.values())) == 3
    assert {port: ask_udp(classics.client, vip, source_port=port) for port in names} == names


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_only_the_ethernet_addresses_change_and_no_answer_passes_the_director(classics, vip):
    configure(classics, vip)
    with Capture(classics.lab.switch, "director") as capture:
        for _ in range(12):
            fetch(classics.client, vip)
        body = fetch(classics.client, vip, "/file", timeout=20)[1]
        time.sleep(0.2)
        frames = [frame for frame in capture.frames() if frame.ports]
    assert body == file_content()
    # What the switch sends on this cable goes into the director.
    went_in = [frame.bytes for frame in frames if frame.outgoing and frame.destination == vip and frame.ports[1] == 80]
    came_out = [frame.bytes for frame in frames if not frame.outgoing]
    assert len(went_in) >= 12 * 5
    packets_in, packets_out = (collections.Counter(frame[12:] for frame in frames) for frames in (went_in, came_out))
    assert packets_out - packets_in == collections.Counter(), "what came out had not gone in like that"
    # A busy machine may lose frames on a virtual cable: TCP sends them again.
    assert packets_out.total() > packets_in.total() * 0.8
    director_mac = went_in[0][:6]
    assert {frame[6:12] for frame in came_out} == {director_mac}
    assert {frame[:6].hex(":") for frame in came_out} == {server.mac for server in classics.servers}
    assert not [frame for frame in frames if frame.ports[0] == 80]


def test_public_address_reaches_the_vip_through_static_nat(classic):
    configure(classic, VIP)
    assert counted(classic, count_servers(classic.client, PUBLIC, 9)) == [3, 3, 3]


def test_quiescent_server_keeps_its_connection_and_gets_no_new_one(classic):
    configure(classic, VIP)
    with KeepAlive(classic.client, VIP, 6) as clients:
        clients.round()
        for server in classic.servers[:2]:
            classic.director.ipvsadm(f"-e -t {VIP}:80 -r {server.address} -g -w 0")
        assert counted(classic, count_servers(classic.client, VIP, 10)) == [0, 0, 10]
        for _ in range(20):
            clients.round()
        assert not clients.failures
        assert collections.Counter(clients.servers.values()) == {"rs1": 2, "rs2": 2, "rs3": 2}


def test_frames_of_full_size_pass_whole(classic):
    configure(classic, VIP, flag="-u", port=53)
    assert ask_udp(classic.client, VIP, b"y" * 1400) in {server.name for server in classic.servers}


def test_every_frame_is_accounted_for_under_load(classics):
    configure(classics, VIP)
    result = wrk(classics.client, VIP, seconds=2, connections=30)
    assert result.requests > 0 and result.failed == 0, result.text
    counters = classics.director.api.settled_counters()
    assert sum(verdicts(counters).values()) == counters["received"]
    assert counters["sent"] == counters["forwarded"] + counters.get("answered", 0) + sum(
        counters.get(name, 0) for name in ("injected", "icmp_errors", "resets", "fragments"))


def test_counters_of_the_service_are_those_of_its_real_servers(classic):
    configure(classic, VIP)
    count_servers(classic.client, VIP, 15)
    service = classic.director.api.service(f"tcp:{VIP}:80")
    for name in ("connections", "in_packets", "in_bytes"):
        assert service["stats"][name] == sum(server["stats"][name] for server in service["real_servers"]) > 0
    assert service["stats"]["connections"] == 15
    assert service["stats"]["out_packets"] == service["stats"]["out_bytes"] == 0
