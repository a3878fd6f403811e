"""Health checks as operators meet them: a real server that fails is taken out in time, the reason is said, and it comes back."""

import signal
import socket
import time

import pytest
from networks import counted

from lab import DIP, VIP, VIP6, count_servers, frames
from lab.servers import web_server
from lab.topology import WIRE_PEER_MAC

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


def certificate(host):
    """A certificate for shop.example that is its own authority."""
    host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=shop.example",
              "-addext", "subjectAltName=DNS:shop.example", "-addext", "basicConstraints=critical,CA:FALSE",
              "-keyout", host.folder / "key.pem", "-out", host.folder / "ca.pem"])


SECURE = """
import http.server, ssl, sys
server = http.server.HTTPServer(("0.0.0.0", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2] + "/ca.pem", sys.argv[2] + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def secure_server(host, port):
    """A web server with TLS."""
    return host.start(["/usr/bin/python3", "-I", "-c", SECURE, port, host.folder], cwd=host.folder)


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
def garbage(s):
    s.sendall(bytes(range(256)) * 64)
def serve(port, work):
    l = socket.create_server(("0.0.0.0", port))
    def one(s):
        try: work(s)
        except OSError: pass
        s.close()
    while True: threading.Thread(target=one, args=(l.accept()[0],), daemon=True).start()
for port, work in ((9001, headers), (9002, slow), (9003, huge), (9004, garbage)):
    threading.Thread(target=serve, args=(port, work), daemon=True).start()
time.sleep(600)
"""


def test_hostile_answers_cost_no_memory_and_no_time(served):
    victim = served.servers[0]
    hostile = victim.start(["/usr/bin/python3", "-I", "-c", HOSTILE])
    try:
        time.sleep(0.5)
        before = served.director.memory_kib()
        for port, reason in [(9001, "something else than HTTP"), (9002, "no whole answer in time"), (9003, "body that does not match"),
                             (9004, "something else than HTTP")]:
            check = {"type": "http", "port": port, "body": "never", "interval": "100ms", "timeout": "300ms"}
            service(served, check, real_servers=[{"address": victim.address}])
            assert reason in becomes(served, victim, "down", 5)["reason"]
            time.sleep(1)
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


def test_fast_profile_acts_within_moments(served):
    service(served, {"type": "tcp", "profile": "fast"})
    all_up(served)
    victim = served.servers[2]
    victim.ip("link set eth0 down")
    try:
        assert "no answer" in becomes(served, victim, "down", 3)["reason"]
    finally:
        victim.ip("link set eth0 up")
        victim.ip("route replace default via 10.10.24.1")
        victim.ip(f"address add {victim.address6}/64 dev eth0 nodad")
        victim.ip("route replace default via fd00:10::1")
    becomes(served, victim, "up", 10)


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


def test_checks_outlive_a_restart(served):
    service(served, {"type": "tcp", "interval": "100ms", "on_failure": "quiesce"})
    all_up(served)
    served.director.stop()
    served.director.start()
    all_up(served)
    assert served.director.api.service(KEY)["health"] == {"type": "tcp", "interval": "100ms", "on_failure": "quiesce"}
