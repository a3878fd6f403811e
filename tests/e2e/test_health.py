"""Health checks as operators meet them: a real server that fails is taken out in time, the reason is said, and it comes back."""

import signal
import socket
import time

import pytest
from checked import all_up, becomes, certificate, health, key, service
from networks import counted

from lab import DIP, VIP, VIP6, connect, count_servers, frames
from lab.servers import web_server
from lab.topology import WIRE_PEER_MAC

KEY = key()


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
    service(served, {"type": "tcp", "interval": "200ms"}, vip)
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


def test_wrong_status_body_and_tls_are_told_apart(served):
    victim, other, _ = served.servers
    certificate(victim)
    secure = secure_server(victim, 8443)
    try:
        for health_spec, reason in [
            ({"type": "http", "status": "204"}, "answers with the wrong status, 200"),
            ({"type": "http", "body": f"^{other.name}$"}, "body that does not match"),
            ({"type": "https"}, "TLS: "),
            ({"type": "http", "port": 81}, "refuses connections"),
            ({"type": "https", "port": 8443, "sni": "shop.example", "verify": False, "body": "^"}, None),
            ({"type": "https", "port": 8443, "sni": "shop.example", "ca": str(victim.folder / "ca.pem")}, None),
            ({"type": "https", "port": 8443, "sni": "wrong.example", "ca": str(victim.folder / "ca.pem")}, "TLS: invalid peer certificate"),
        ]:
            only = {"real_servers": [{"address": victim.address}]}
            service(served, {**health_spec, "interval": "200ms", "timeout": "2s"}, **only)
            seen = becomes(served, victim, "down" if reason else "up", 5)
            assert (reason or "") in (seen.get("reason") or ""), (health_spec, seen)
            served.director.clear()
    finally:
        secure.terminate()
        secure.wait()


SECURE = """daemon off;
master_process off;
pid {folder}/secure.pid;
error_log {folder}/secure.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/secure-body;
    proxy_temp_path {folder}/secure-proxy;
    fastcgi_temp_path {folder}/secure-fastcgi;
    uwsgi_temp_path {folder}/secure-uwsgi;
    scgi_temp_path {folder}/secure-scgi;
    server {{
        listen {port} ssl;
        ssl_certificate {folder}/ca.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{ return 200 "well\\n"; }}
    }}
}}
"""


def secure_server(host, port):
    """nginx with TLS."""
    (host.folder / "secure.conf").write_text(SECURE.format(folder=host.folder, port=port))
    return host.start(["nginx", "-e", host.folder / "secure.log", "-c", host.folder / "secure.conf"])


HOSTILE = """
import socket, sys, threading, time
def headers(s):
    s.recv(4096); s.sendall(b"HTTP/1.1 200 OK\\r\\n")
    while True: s.sendall(b"x-more: " + b"y" * 1000 + b"\\r\\n")
def slow(s):
    for b in b"HTTP/1.1 200 OK\\r\\nserver: as slow as can be\\r\\n\\r\\n": s.sendall(bytes([b])); time.sleep(1)
def huge(s):
    s.recv(4096); s.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 4294967296\\r\\n\\r\\n")
    while True: s.sendall(b"z" * 65536)
def events(s):
    s.recv(4096); s.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\n")
    while True: s.sendall(b"data: and on it goes\\n\\n"); time.sleep(0.01)
def chunks(s):
    s.recv(4096); s.sendall(b"HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n")
    while True: s.sendall(b"ffffffffffffffff;" + b"x" * 4096)
def settings(s):
    while True: s.sendall(bytes.fromhex("000000040000000000") * 100)
def garbage(s):
    s.sendall(bytes(range(256)) * 64)
def serve(port, work):
    l = socket.create_server(("0.0.0.0", port))
    def one(s):
        try: work(s)
        except OSError: pass
        s.close()
    while True: threading.Thread(target=one, args=(l.accept()[0],), daemon=True).start()
for port, work in ((9001, headers), (9002, slow), (9003, huge), (9004, garbage), (9005, events), (9006, chunks), (9007, settings)):
    threading.Thread(target=serve, args=(port, work), daemon=True).start()
time.sleep(600)
"""


def test_hostile_answers_cost_no_memory_and_no_time(served):
    victim = served.servers[0]
    hostile = victim.start(["/usr/bin/python3", "-I", "-c", HOSTILE])
    try:
        time.sleep(0.5)
        before = served.director.memory_kib()
        for kind, port, reason in [
            ("http", 9001, "something else than HTTP"), ("http", 9002, "no whole answer in time"), ("http", 9003, "body that does not match"),
            ("http", 9004, "something else than HTTP"), ("http", 9005, "in time"), ("http", 9006, "something else than HTTP"),
            ("https", 9002, "TLS: "), ("https", 9003, "TLS: "), ("https", 9004, "TLS: "), ("https", 9007, "TLS: "),
            ("grpc", 9001, "something else than HTTP/2"), ("grpc", 9004, "something else than HTTP/2"), ("grpc", 9007, "answer"),
        ]:
            extra = {} if kind == "grpc" else {"body": "never"}
            service(served, {"type": kind, "port": port, "interval": "100ms", "timeout": "300ms", **extra}, real_servers=[{"address": victim.address}])
            seen = becomes(served, victim, "down", 5)["reason"]
            assert reason in seen, (kind, port, seen)
            time.sleep(0.3)
            served.director.clear()
        assert served.director.memory_kib() - before < 16 << 10
    finally:
        hostile.terminate()
        hostile.wait()


def test_sorry_server_answers_while_all_others_are_down(served):
    first, second, sorry = served.servers
    service(served, {"type": "tcp", "interval": "100ms", "sorry_server": {"address": sorry.address}},
            real_servers=[{"address": first.address}, {"address": second.address}])
    for server in (first, second):
        becomes(served, server, "up", 5)
    assert counted(served, count_servers(served.client, VIP, 4)) == [2, 2, 0]
    for server in (first, second):
        server.ip(f"address del {VIP}/32 dev lo")
    for server in (first, second):
        becomes(served, server, "down", 5)
    assert counted(served, count_servers(served.client, VIP, 4)) == [0, 0, 4]
    assert served.director.api.service(KEY)["quorum"] == {"met": False, "weight": 0, "wanted": 1, "sorry": True}
    served.lab.prepare()
    for server in (first, second):
        becomes(served, server, "up", 5)
    assert counted(served, count_servers(served.client, VIP, 4)) == [2, 2, 0]


def cut(server):
    """Takes a real server's link away; what puts it back."""
    server.ip("link set eth0 down")

    def mend():
        server.ip("link set eth0 up")
        server.ip("route replace default via 10.10.24.1")
        server.ip(f"address add {server.address6}/64 dev eth0 nodad")
        server.ip("route replace default via fd00:10::1")

    return mend


@pytest.mark.parametrize(("health_spec", "moment", "rounds"), [({"type": "tcp"}, 3.5, 2), ({"type": "tcp", "profile": "fast"}, 0.3, 6)], ids=["default", "fast"])
def test_clients_go_elsewhere_so_soon_after_a_real_server_died(served, health_spec, moment, rounds):
    service(served, health_spec)
    victim = served.servers[2]
    for _ in range(rounds):
        all_up(served)
        mend = cut(victim)
        try:
            time.sleep(moment)
            acted = health(served, victim)["state"] == "down"
            assert "no answer" in becomes(served, victim, "down", 5)["reason"]
            assert counted(served, count_servers(served.client, VIP, 4)) == [2, 2, 0]
        finally:
            mend()
        # On a machine with much else to do the control core may come too late, but not every time.
        if acted:
            return
    raise AssertionError(f"{moment} s after it died, the real server was still in, {rounds} times")


def test_recovered_real_server_goes_on_with_the_connections_it_had(served):
    victim = served.servers[0]
    echo = victim.start(["/usr/bin/python3", "-I", "-c", ECHO, "7"])
    servers = [{"address": victim.address}, {"address": served.servers[1].address}]
    spec = {"type": "http", "port": 80, "interval": "100ms", "timeout": "300ms"}
    # All of a service's new connections go to the first; its health is that of another port.
    served.director.api.post("services", {"protocol": "tcp", "address": VIP, "port": 7, "scheduler": "rr", "health": spec,
                                          "real_servers": [servers[0], {**servers[1], "weight": 0}]})
    becomes(served, victim, "up", 5, port=7)
    try:
        until = time.monotonic() + 5
        while True:
            try:
                held = connect(served.client, VIP, 7)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until
                time.sleep(0.05)
        with held:
            held.sendall(b"before")
            assert held.recv(64) == b"before"
            victim.run("nft add table ip broken; nft 'add chain ip broken in { type filter hook input priority 0; }'; "
                       "nft add rule ip broken in tcp dport 80 reject with tcp reset")
            becomes(served, victim, "down", 5, port=7)
            held.sendall(b"meanwhile")
            held.settimeout(0.5)
            with pytest.raises(TimeoutError):
                held.recv(64)
            victim.run("nft delete table ip broken")
            becomes(served, victim, "up", 5, port=7)
            held.settimeout(10)
            assert held.recv(64) == b"meanwhile", "its client sent it again, and the entry was still there"
    finally:
        echo.terminate()
        echo.wait()


ECHO = """
import socket, sys, threading
listener = socket.create_server(("", int(sys.argv[1])))
def one(client):
    while data := client.recv(4096): client.sendall(data)
while True: threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
"""


def test_recovered_real_server_starts_slowly(served):
    service(served, {"type": "tcp", "interval": "100ms", "slow_start": "10m"}, scheduler="wrr")
    all_up(served)
    victim = served.servers[0]
    victim.ip(f"address del {VIP}/32 dev lo")
    becomes(served, victim, "down", 5)
    served.lab.prepare()
    assert becomes(served, victim, "up", 5)["slow_start"] == 10
    assert counted(served, count_servers(served.client, VIP, 21)) == [1, 10, 10]


def test_syns_that_clients_repeat_have_a_real_server_checked_at_once(served):
    victim = served.servers[0]
    service(served, {"type": "tcp", "interval": "60m", "hints": True}, real_servers=[{"address": victim.address}])
    becomes(served, victim, "up", 5)
    time.sleep(0.6)
    victim.run("nft add table ip broken; nft 'add chain ip broken in { type filter hook input priority 0; }'; nft add rule ip broken in tcp dport 80 drop")
    clients = [served.client.socket() for _ in range(6)]
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex((VIP, 80))
        becomes(served, victim, "down", 10)
        events = served.director.api.get("events?kind=health-hint")["events"]
        assert "clients repeated" in events[-1]["reason"] and events[-1]["real_server"] == f"{victim.address}:80"
    finally:
        for client in clients:
            client.close()
        victim.run("nft delete table ip broken")


def test_events_are_told_with_their_reason_and_watched_through_a_restart(served):
    service(served, {"type": "tcp", "interval": "100ms"})
    all_up(served)
    victim = served.servers[0]
    log = served.director.host.folder / "watched"
    watcher = served.director.host.start(["baton", "events", "--watch", "--kind", "health-changed", "--service", KEY], log=log)
    try:
        victim.ip(f"address del {VIP}/32 dev lo")
        becomes(served, victim, "down", 5)
        served.lab.prepare()
        becomes(served, victim, "up", 5)
        said(log, f"{KEY} -> {victim.address}:80: RIP answers, VIP does not")
        said(log, f"{KEY} -> {victim.address}:80: tcp to {VIP}:80 on the clients' path succeeds")
        last = served.director.api.get("events")["latest"]
        served.director.stop()
        served.director.start()
        all_up(served)
        after = served.director.api.get(f"events?since={last}")
        assert after["gap"]["after"] == last and all(event["id"] > last for event in after["events"])
        said(log, "the director ended the stream")
        said(log, "are missing")
    finally:
        watcher.terminate()
        watcher.wait()


def said(log, text):
    """Waits until the text is in a file."""
    until = time.monotonic() + 10
    while text not in log.read_text():
        assert time.monotonic() < until, f"{text!r} is not in:\n{log.read_text()}"
        time.sleep(0.05)


def test_check_goes_into_the_tunnel_and_its_answer_is_believed_from_the_vip_only(wire):
    spec = {"protocol": "tcp", "address": VIP, "port": 80, "health": {"type": "tcp", "interval": "100ms", "timeout": "400ms"},
            "real_servers": [{"address": "10.10.24.21", "method": "tunnel", "mac": WIRE_PEER_MAC}]}
    wire.director.api.post("services", spec)
    asked = question(wire)
    assert (asked.destination, asked.bytes[:6].hex(":")) == ("10.10.24.21", WIRE_PEER_MAC)
    inner = asked.bytes[34:]
    assert (socket.inet_ntoa(inner[12:16]), socket.inet_ntoa(inner[16:20])) == (DIP, VIP)
    until = time.monotonic() + 5
    while wire.director.api.real_server(KEY, "10.10.24.21:80")["health"]["state"] != "down":
        assert time.monotonic() < until
        time.sleep(0.05)
    while wire.director.api.real_server(KEY, "10.10.24.21:80")["health"]["state"] != "up":
        assert time.monotonic() < until
        inner = question(wire).bytes[34:]
        port, sequence = int.from_bytes(inner[20:22], "big"), int.from_bytes(inner[24:28], "big")
        # Somebody else's answer, to another port of ours, changes nothing; the real one opens the connection.
        for to in (port ^ 1, port):
            segment = frames.tcp_segment(VIP, DIP, 80, to, "SA", acknowledges=sequence + 1)
            wire.cable.send(frames.ethernet(0x0800, frames.ip(VIP, DIP, 6, segment)))


def question(wire):
    """The next SYN of a check in a tunnel."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for frame in wire.cable.frames():
            if frame.protocol == 4 and frame.bytes[34 + 9] == 6 and frame.bytes[54 + 13] == 2:
                return frame
        time.sleep(0.01)
    raise AssertionError("no check came")


def test_service_that_is_brought_back_at_once_knows_who_is_down(served):
    victim = served.servers[0]
    victim.ip(f"address del {VIP}/32 dev lo")
    for _ in range(10):
        served.director.api.delete("services")
        service(served, {"type": "tcp", "interval": "100ms"})
        becomes(served, victim, "down", 5)
        for server in served.servers[1:]:
            becomes(served, server, "up", 5)


def test_checks_outlive_a_restart(served):
    service(served, {"type": "tcp", "interval": "100ms", "on_failure": "quiesce"})
    all_up(served)
    served.director.stop()
    served.director.start()
    all_up(served)
    assert served.director.api.service(KEY)["health"] == {"type": "tcp", "interval": "100ms", "on_failure": "quiesce"}
