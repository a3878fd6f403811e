"""Start, stop, crash, restart: what the director says, and what it keeps."""

import json
import re
import socket
import time
from pathlib import Path

import pytest
from networks import classic_network

from lab import VIP, Capture, Director, KeepAlive, config_text, count_servers, fetch, frames

ISSUE = """[[port]]
name = "lan"
device = "net_af_packet0,iface=d0"
addresses = ["10.10.24.10/24", "fd00:10::10/64"]
gateways = ["10.10.24.1", "fd00:10::1"]
[workers]
cores = [1]
[control]
core = 0
socket = "/run/baton/baton.sock"
state = "/var/lib/baton/state.json"
[eal]
no_huge = true
memory = "1G"
[forwarding]
ttl = "decrement"
"""

SERVICE = {"protocol": "tcp", "address": VIP, "port": 80, "scheduler": "rr",
           "real_servers": [{"address": "10.10.24.21", "weight": 3, "mac": "02:00:00:00:00:15"}, {"address": "10.10.24.22", "weight": 0}]}


def document(director):
    """The configuration, without its revision."""
    found = director.api.get("config")
    found.pop("revision")
    return found


def test_configuration_of_the_manual_starts_as_it_stands_and_lowers_the_ttl(lonely):
    with Director(lonely.director, ISSUE) as director, Capture(lonely.peer, "p0") as cable:
        assert lonely.director.run(["baton", "check", "--config", director.config_path]).returncode == 0
        director.api.post("services", SERVICE)
        cable.frames()
        cable.send(frames.tcp("198.51.100.1", VIP, ttl=9))
        out = cable.wait(lambda frame: not frame.outgoing and frame.protocol == 6)[-1].bytes
        assert out[22] == 8 and frames.checksum(out[14:34]) == 0
        cable.send(frames.tcp("198.51.100.1", VIP, ttl=1))
        exceeded = cable.wait(lambda frame: not frame.outgoing and frame.protocol == 1)[-1].bytes
        assert exceeded[34] == 11 and exceeded[:6] == frames.mac(frames.PEER_MAC)


def test_sigterm_ends_it_with_status_0_and_leaves_nothing(lonely):
    director = Director(lonely.director, config_text(lonely.device))
    director.start()
    assert "lan" in lonely.director.ip("-o link show")
    before = time.monotonic()
    assert director.stop() == 0
    assert time.monotonic() - before < 5
    assert not director.api.path.exists()
    assert " lan:" not in lonely.director.ip("-o link show")
    director.start()
    assert director.stop() == 0


def test_services_survive_kill_9(lonely):
    director = Director(lonely.director, config_text(lonely.device))
    director.start()
    director.api.post("services", SERVICE)
    director.api.patch("settings", {"sloppy_tcp": 1})
    before = document(director)
    director.kill()
    director.start()
    assert document(director) == before
    assert [server["weight"] for server in director.api.service(f"tcp:{VIP}:80")["real_servers"]] == [3, 0]
    assert director.stop() == 0


def test_state_is_whole_whenever_it_dies(lonely):
    """Killed at a random moment while services change: what it starts with next is one of the documents that it had, the last answered or newer."""
    director = Director(lonely.director, config_text(lonely.device))
    for turn in range(8):
        director.start()
        weight = 0
        until = time.monotonic() + 0.05 + turn * 0.03
        while time.monotonic() < until:
            weight += 1
            director.api.put(f"services/tcp:{VIP}:80", {**SERVICE, "real_servers": [{**SERVICE["real_servers"][0], "weight": weight}]})
        director.kill()
        state = lonely.director.folder / "lib" / "baton" / "state.json"
        [service] = json.loads(state.read_text())["services"]
        assert service["real_servers"][0]["weight"] == weight


def test_damaged_state_file_is_refused_and_left_alone(lonely):
    state = lonely.director.folder / "lib" / "baton" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"services": [')
    director = Director(lonely.director, config_text(lonely.device))
    status, said = director.fails_to_start()
    assert status != 0 and "/var/lib/baton/state.json" in said
    assert state.read_text() == '{"services": ['


def test_initial_services_come_from_the_configuration_until_there_is_a_state(lonely):
    more = f"""
[[service]]
protocol = "tcp"
address = "{VIP}"
port = 80
[[service.real_server]]
address = "10.10.24.21"
"""
    director = Director(lonely.director, config_text(lonely.device, more=more))
    director.start()
    assert [service["id"] for service in director.api.get("services")["services"]] == [f"tcp:{VIP}:80"]
    director.api.delete("services")
    assert director.stop() == 0
    director.start()
    assert director.api.get("services")["services"] == []
    assert director.stop() == 0


def test_second_director_refuses_and_the_first_goes_on():
    with classic_network() as network:
        network.director.ipvsadm(f"-A -t {VIP}:80 -s rr", *(f"-a -t {VIP}:80 -r {server.address} -g" for server in network.servers))
        host = network.director.host
        first = network.director.config_path.read_text()
        attempts = {
            "the same socket and port": first,
            "the same port": first.replace("[control]", '[control]\nsocket = "/run/baton/2.sock"\nstate = "/var/lib/baton/2.json"', 1)
                                  .replace("[eal]", '[eal]\nfile_prefix = "second"', 1),
        }
        with KeepAlive(network.client, VIP, 6) as clients:
            clients.round()
            for what, text in attempts.items():
                path = host.folder / "second.toml"
                path.write_text(text)
                done = host.run(["baton", "run", "--config", path], check=False, timeout=20)
                said = done.stdout + done.stderr
                assert done.returncode not in (0, -9), what
                assert re.search(r"another|already|in use", said), f"{what}: {said}"
                clients.round()
                assert sorted(count_servers(network.client, VIP, 3).values()) == [1, 1, 1], what
            assert clients.failures == []
        assert network.director.is_ready()
        assert len(network.director.api.get("services")["services"][0]["real_servers"]) == 3


def huge_pages_free():
    """Whether this machine has hugepages."""
    return int(re.search(r"HugePages_Free:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) > 0


REFUSALS = [
    ("core not allowed", lambda text: re.sub(r"cores = .*", "cores = [999]", text), ["999", "not allowed"]),
    ("interface not found", lambda text: text.replace("iface=d0", "iface=nowhere"), ["nowhere"]),
    ("pci device not found", lambda text: text.replace("net_af_packet0,iface=d0", "0000:fe:1f.7"), ["0000:fe:1f.7"]),
    ("unknown driver", lambda text: text.replace("net_af_packet0,iface=d0", "net_nonsense0"), ["net_nonsense0"]),
    ("state folder is a file", lambda text: text.replace("[control]", '[control]\nstate = "/proc/version/state.json"', 1), ["/proc/version"]),
]


@pytest.mark.parametrize("change, words", [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_failure_to_start_names_what_is_wrong(lonely, change, words):
    director = Director(lonely.director, change(config_text(lonely.device)))
    status, said = director.fails_to_start()
    assert status not in (0, 101) and status > 0, said
    assert all(word in said for word in words) and "panicked" not in said, said
    assert not director.api.path.exists()


def test_missing_hugepages_are_named_with_what_mends_it(lonely):
    if huge_pages_free():
        pytest.skip("this machine has hugepages")
    status, said = Director(lonely.director, config_text(lonely.device).replace("no_huge = true", "no_huge = false")).fails_to_start()
    assert status > 0 and "vm.nr_hugepages" in said and "no_huge = true" in said, said


def test_tcp_address_in_use_is_refused_by_name(lonely):
    with lonely.director.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 8081))
        taken.listen()
        text = config_text(lonely.device).replace("[control]", '[control]\nlisten = "127.0.0.1:8081"', 1)
        status, said = Director(lonely.director, text).fails_to_start()
    assert status > 0 and "127.0.0.1:8081" in said and "in use" in said, said


def test_api_listens_on_loopback_when_told(lonely):
    text = config_text(lonely.device).replace("[control]", '[control]\nlisten = "127.0.0.1:8081"', 1)
    with Director(lonely.director, text) as director:
        said = lonely.director.run(["curl", "-sf", "http://127.0.0.1:8081/api/v1/workers"]).stdout
        assert [worker["id"] for worker in json.loads(said)] == [0]
        assert "Prot LocalAddress" in director.run("BATON_API=http://127.0.0.1:8081 ipvsadm -ln")
        assert oct(director.api.path.stat().st_mode)[-3:] == "660"


def test_check_names_every_fault_with_line_and_column(lonely):
    path = lonely.director.folder / "faulty.toml"
    path.write_text("""[[port]]
name = "lan"
device = "net_af_packet0,iface=d0"
addresses = ["10.10.24.10"]
colour = "blue"
[workers]
cores = ["one"]
[forwarding]
ttl = "keep"
[[service]]
protocol = "tcp"
address = "10.10.24.88"
port = 0
""")
    done = lonely.director.run(["baton", "check", "--config", path], check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    for place, word in (("4:", "10.10.24.10"), ("5:", "colour"), ("7:", "one"), ("9:", "keep"), ("13:", "0")):
        assert any(f":{place}" in line and word in line for line in said.splitlines()), f"{place} {word}:\n{said}"
    assert "EAL" not in said


def test_memory_stays_flat_while_services_and_connections_come_and_go():
    with classic_network() as network:
        director = network.director

        def churn(rounds):
            for _ in range(rounds):
                director.api.put(f"services/tcp:{VIP}:80", {
                    "protocol": "tcp", "address": VIP, "port": 80, "scheduler": "wrr",
                    "real_servers": [{"address": server.address} for server in network.servers]})
                for _ in range(5):
                    fetch(network.client, VIP)
                director.api.get("services")
                director.api.get("connections?limit=10")
                director.api.delete(f"services/tcp:{VIP}:80")

        churn(100)
        before = director.memory_kib()
        churn(300)
        assert director.memory_kib() - before < 4096, f"{before} KiB became {director.memory_kib()} KiB"


def test_vip_is_served_again_after_a_restart():
    with classic_network() as network:
        network.director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {network.servers[0].address} -g")
        assert fetch(network.client, VIP)[0] == "rs1"
        assert network.director.stop() == 0
        with pytest.raises(OSError):
            fetch(network.client, VIP, timeout=1)
        network.director.start()
        # Ready means that it takes requests and commands; the real server's MAC is asked for then, and known moments later.
        until = time.monotonic() + 2
        while network.director.api.service(f"tcp:{VIP}:80")["real_servers"][0]["state"] != "ready" and time.monotonic() < until:
            time.sleep(0.01)
        assert fetch(network.client, VIP)[0] == "rs1"
        assert network.director.stop() == 0
