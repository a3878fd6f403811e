"""Changes of the whole configuration: apply, diff, reload, rollback; what they leave alone, and what a crash leaves."""

import json
import re
import signal
import time

import pytest
from networks import classic_network

from lab import VIP, Director, KeepAlive, Problem, config_text, fetch
from lab.load import connect
from lab.servers import FILE_SIZE

WEB = f"tcp:{VIP}:80"


def service_text(port=80, servers=("10.10.24.21", "10.10.24.22", "10.10.24.23"), scheduler="rr", more=""):
    """A [[service]] of baton.toml."""
    lines = [f'[[service]]\nprotocol = "tcp"\naddress = "{VIP}"\nport = {port}\nscheduler = "{scheduler}"\n{more}']
    lines += [f'[[service.real_server]]\naddress = "{server}"\n' for server in servers]
    return "".join(lines)


@pytest.fixture(scope="module")
def module_network():
    """The classic network, whose baton.toml tests rewrite."""
    with classic_network() as network:
        network.plain = network.director.config_path.read_text()
        yield network


@pytest.fixture
def network(module_network):
    """No services, and baton.toml as it was at the start."""
    director = module_network.director
    director.config_path.write_text(module_network.plain)
    director.run("baton reload")
    director.clear()
    return module_network


def write(network, *services, settings=""):
    """baton.toml with these services."""
    network.director.config_path.write_text(network.plain + settings + "".join(services))


def baton(network, line, status=0, **more):
    """A command's output on both streams, which must end with `status`."""
    done = network.director.host.run(f"baton {line}", check=False, **more)
    assert done.returncode == status, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class Witness:
    """What must not notice a change: a running download, open connections, counters, and the turn of rr."""

    def __init__(self, network):
        self.network = network
        self.order = [fetch(network.client, VIP)[0] for _ in range(3)]
        self.open = KeepAlive(network.client, VIP, 5)
        self.open.round()
        self.download = connect(network.client, VIP, timeout=30)
        self.download.sendall(b"GET /slow HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        self.got = self.download.recv(1000)
        self.scheduled = 3 + 5 + 1

    def confirm(self):
        """After a change: all of it went on."""
        self.open.round()
        assert self.open.failures == []
        assert self.network.director.api.service(WEB)["stats"]["connections"] == self.scheduled
        turns = [fetch(self.network.client, VIP)[0] for _ in range(2)]
        assert turns == [self.order[(self.scheduled + turn) % 3] for turn in range(2)], "rr goes on where it was"
        self.scheduled += 2

    def end(self):
        """The download comes to its end, whole."""
        self.got += b"".join(iter(lambda: self.download.recv(65536), b""))
        self.download.close()
        self.open.__exit__()
        assert len(self.got.partition(b"\r\n\r\n")[2]) == FILE_SIZE


def test_unchanged_service_keeps_connections_counters_and_turn_through_every_change(network):
    write(network, service_text())
    baton(network, "reload")
    witness = Witness(network)
    write(network, service_text(), service_text(81), settings="[settings]\nsloppy_tcp = 1\n")
    said = baton(network, "reload")
    assert f"tcp:{VIP}:81" in said and "sloppy_tcp" in said and "2 differences were applied" in said
    witness.confirm()
    document = network.director.api.get("config")
    document["services"].append({**document["services"][1], "port": 82, "real_servers": []})
    said = baton(network, "apply -f -", stdin=json.dumps(document))
    assert f"tcp:{VIP}:82" in said and "1 difference was applied" in said
    witness.confirm()
    assert "1 difference was applied" in baton(network, "rollback")
    witness.confirm()
    revision = network.director.api.get("config")["revision"]
    write(network, service_text(), service_text(81, scheduler="wlc"), settings="[settings]\nsloppy_tcp = 1\n")
    network.director.process.send_signal(signal.SIGHUP)
    wait_for_log(network.director, f"/services/tcp:{VIP}:81/scheduler changed")
    assert network.director.api.service(f"tcp:{VIP}:81")["scheduler"] == "wlc"
    assert network.director.api.get("config")["revision"] == revision + 1
    witness.confirm()
    witness.end()


def wait_for_log(director, text):
    """Until the director's log says `text`."""
    until = time.monotonic() + 10
    while text not in director.log():
        assert time.monotonic() < until, f"the log does not say {text!r}"
        time.sleep(0.02)


def test_reload_is_refused_whole_and_by_name(network):
    api = network.director.api
    before = api.get("config")
    text = network.plain.replace("connections = 262144", "connections = 131072").replace('ttl = "preserve"', 'ttl = "decrement"')
    network.director.config_path.write_text(text + service_text())
    said = baton(network, "reload", status=1)
    assert "limits.connections" in said and "forwarding.ttl" in said and "[needs-restart]" in said
    write(network, service_text(scheduler="fastest"), service_text(81, servers=["10.99.0.1"]))
    said = baton(network, "reload", status=1)
    assert 'service[0].scheduler: "fastest"' in said and "service[1].real_server[0].address" in said and "[faulty-configuration]" in said
    network.director.process.send_signal(signal.SIGHUP)
    wait_for_log(network.director, "SIGHUP: ")
    assert api.get("config") == before


def test_reload_leaves_what_others_changed(network):
    api = network.director.api
    write(network, service_text(), settings="[settings]\ntimeout_udp = 30\n")
    baton(network, "reload")
    network.director.ipvsadm(f"-A -t {VIP}:90 -s rr", f"-e -t {VIP}:80 -r 10.10.24.21 -g -w 7")
    assert "nothing differs" in baton(network, "reload --dry-run") and "nothing differs" in baton(network, "reload")
    write(network, service_text(), service_text(81), settings="[settings]\ntimeout_udp = 30\n")
    assert "1 difference" in baton(network, "reload --dry-run")
    baton(network, "reload")
    assert [service["port"] for service in api.get("services")["services"]] == [80, 90, 81]
    assert api.real_server(WEB, "10.10.24.21:80")["weight"] == 7


def test_diff_and_apply_say_exactly_what_differs(network):
    api, path = network.director.api, network.director.config_path
    write(network, service_text())
    assert baton(network, f"diff -f {path}", status=1).count("\n+ ") > 10
    assert baton(network, f"apply --dry-run -f {path}").endswith(f"1 difference from revision {api.get('config')['revision']}\n")
    assert api.get("services")["services"] == []
    baton(network, f"apply -f {path}")
    assert baton(network, f"diff -f {path}") == ""
    network.director.ipvsadm(f"-e -t {VIP}:80 -r 10.10.24.22 -g -w 4")
    said = baton(network, f"diff -f {path}", status=1)
    place = f"@@ /services/{WEB}/real_servers/10.10.24.22:80 @@\n- weight: 4\n+ weight: 1\n"
    assert said.startswith(place) and "\x1b" not in said
    found = json.loads(baton(network, f"diff -o json -f {path}", status=1))
    assert (found["added"], found["removed"]) == ([], []) and found["changed"][0]["before"] == 4
    path.write_text("[[service]]\nport = 80\n")
    assert "[faulty-configuration]" in baton(network, f"diff -f {path}", status=2)
    assert "[faulty-configuration]" in baton(network, f"apply -f {path}", status=1)
    assert "[unreadable-file]" in baton(network, "diff -f /nowhere", status=2)
    assert "[unreachable]" in baton(network, "--api unix:/nowhere diff -f -", status=2, stdin="{}")
    assert "services[0]" in baton(network, "apply -f -", status=1, stdin='{"services": [{"protocol": "tcp"}]}')


def test_history_tells_who_and_rolls_back(network):
    director, api = network.director, network.director.api
    director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.10.24.21 -g")
    revision = api.get("config")["revision"]
    lines = baton(network, "history").splitlines()
    assert re.match(rf"{revision} +\S+Z +root \(uid 0\) +yes +real server 10.10.24.21:80 of virtual service {WEB} added", lines[1].strip()), lines[1]
    assert json.loads(baton(network, f"history {revision}")) == api.get("config")
    baton(network, f"rollback {revision - 1}")
    assert api.service(WEB)["real_servers"] == []
    baton(network, "rollback")
    assert len(api.service(WEB)["real_servers"]) == 1
    assert "[revision-not-kept]" in baton(network, "rollback 999999", status=1)
    for weight in range(60):
        director.api.patch(f"services/{WEB}/real-servers/10.10.24.21:80", {"weight": weight})
    history = api.get("history")
    assert len(history["changes"]) == 50 and all(change["kept"] for change in history["changes"])


def test_two_writers_do_not_overwrite_each_other(network):
    api = network.director.api
    made = api.post("services", {"protocol": "tcp", "address": VIP, "port": 80})
    api.get(f"services/{made['id']}")
    tag = api.headers["etag"]
    curl = f"curl -sS --unix-socket {api.path} -X PATCH -d '{{\"scheduler\": \"rr\"}}' -w '%{{http_code}}' -H 'If-Match: {tag}' " \
           f"http://localhost/api/v1/services/{made['id']}"
    assert network.director.run(curl).endswith("200")
    said = network.director.run(curl)
    assert said.endswith("412") and "/problems/precondition-failed" in said
    status, text = api.raw("GET", "/problems/precondition-failed")
    assert status == 200 and "If-Match" in text
    assert "precondition-failed" in baton(network, "errors")
    with pytest.raises(Problem) as caught:
        api.delete(f"services/{WEB}?dryrun=1")
    assert caught.value.kind == "malformed"


def test_history_and_what_the_file_said_outlive_kill_9(lonely):
    director = Director(lonely.director, config_text(lonely.device, more=service_text()))
    director.start()
    director.ipvsadm(f"-D -t {VIP}:80")
    director.ipvsadm(f"-A -t {VIP}:81 -s rr")
    before = director.api.get("history")
    director.kill()
    director.start()
    assert director.api.get("history") == before and [entry["kept"] for entry in before["changes"]] == [True] * 3
    assert director.run("baton reload").startswith("nothing differs"), "the file is as it was when it was applied"
    director.run("baton rollback 0")
    assert [service["port"] for service in director.api.get("services")["services"]] == [80]
    director.config_path.write_text(config_text(lonely.device, more=service_text(scheduler="wlc")))
    assert director.stop() == 0
    director.start()
    assert director.api.service(WEB)["scheduler"] == "rr", "the state file counts"
    assert "baton reload" in director.log()
    director.run("baton reload")
    assert director.api.service(WEB)["scheduler"] == "wlc"
    assert director.stop() == 0
