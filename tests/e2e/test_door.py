"""Who may use the API: local users, tokens, client certificates; what is written down; what a hostile client can draw out."""

import contextlib
import json
import random
import select
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from lab import DIP, VIP, Director, Wire, config_text, ready_binary
from lab.host import command

URL = "https://127.0.0.1:8443"
FAR = f"https://{DIP}:8443"
SERVICE = {"protocol": "tcp", "address": VIP, "port": 80, "real_servers": []}

AUTHORITY = """[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
organizationName = optional
"""


class Authority:
    """A certificate authority of openssl's, in a folder of its own."""

    def __init__(self, folder, name):
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "ca.cnf").write_text(AUTHORITY)
        (self.folder / "index.txt").touch()
        (self.folder / "serial").write_text("01\n")
        self.certificate = self.folder / "ca.pem"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                     "-days", "30", "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign", "-addext", "basicConstraints=critical,CA:true")

    def openssl(self, *words):
        """One command in the folder."""
        command(["env", "-C", str(self.folder), "openssl", *words])

    def sign(self, name, extensions, dates=("-days", "30")):
        """A certificate with its key: (certificate, key)."""
        key, request, certificate = (f"{name}.{end}" for end in ("key", "csr", "pem"))
        (self.folder / "extensions").write_text(extensions)
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request,
                     "-subj", f"/O=Example/CN={name}")
        self.openssl("ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", request, "-out", certificate,
                     "-extfile", "extensions", *dates)
        return self.folder / certificate, self.folder / key

    def server(self):
        """A certificate for the director."""
        return self.sign("director", f"subjectAltName=IP:127.0.0.1,IP:{DIP}\nextendedKeyUsage=serverAuth\n")

    def client(self, name, **more):
        """A client's certificate."""
        return self.sign(name, "extendedKeyUsage=clientAuth\n", **more)


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """A director that listens with TLS on every address, with a token and a client for each role."""
    folder = tmp_path_factory.mktemp("door")
    ca = Authority(folder, "ca")
    certificate, key = ca.server()
    with Wire() as lab:
        ready_binary(lab)
        host = lab.director
        tokens, sections = {}, ""
        for role in ("read", "operate", "admin"):
            made = host.run(["baton", "token", "--name", role, "--role", role])
            tokens[role] = made.stdout.strip()
            (folder / f"{role}.token").write_text(made.stdout)
            sections += made.stderr + f'\n[[control.client]]\nname = "{role}.example.org"\nrole = "{role}"\n'
        lines = (f'listen = "0.0.0.0:8443"\nmetrics_listen = "0.0.0.0:9100"\naudit = "{folder}/audit"\nsocket_mode = "0600"\n'
                 f'tls = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem", client_ca = "{ca.certificate}" }}\n')
        (folder / "cert.pem").write_bytes(certificate.read_bytes())
        (folder / "key.pem").write_bytes(key.read_bytes())
        text = config_text(lab.device, gateways=(), more=sections).replace("[control]", f"[control]\n{lines}", 1)
        with Director(host, text) as director:
            yield SimpleNamespace(director=director, host=host, folder=folder, ca=ca, tokens=tokens)


def curl(door, *words, url=URL, path="/api/v1/services", ca=None):
    """curl's exit code, the status and the answer's document."""
    line = ["curl", "-sS", "-m", "20", "--cacert", ca or door.ca.certificate, "-w", "\n%{http_code}", *words, url + path]
    done = door.host.run(line, check=False)
    text, _, status = done.stdout.rpartition("\n")
    return done.returncode, int(status or 0), json.loads(text) if text.startswith(("{", "[")) else text


def bearer(token):
    """curl's words for a token."""
    return ["-H", f"Authorization: Bearer {token}"]


def shown(pair):
    """curl's words for a client certificate."""
    return ["--cert", str(pair[0]), "--key", str(pair[1])]


def audited(door):
    """The audit log's entries."""
    return [json.loads(line) for line in (door.folder / "audit").read_text().splitlines()]


def test_token_or_certificate_opens_the_api_and_nothing_else_does(door):
    stranger = Authority(door.folder, "stranger")
    expired = door.ca.client("admin.example.org", dates=("-startdate", "20200101000000Z", "-enddate", "20200102000000Z"))
    good, unnamed = door.ca.client("read.example.org"), door.ca.client("nobody.example.org")
    for words, url, status, kind in (
        ([], URL, 401, "unauthorized"),
        ([], FAR, 401, "unauthorized"),
        (bearer("wrong"), FAR, 401, "unauthorized"),
        (["-H", "Authorization: Basic YTpi"], URL, 401, "unauthorized"),
        (bearer(door.tokens["read"]), URL, 200, None),
        (bearer(door.tokens["read"]), FAR, 200, None),
        (shown(good), FAR, 200, None),
        (shown(unnamed), FAR, 403, "forbidden"),
    ):
        code, got, answer = curl(door, *words, url=url)
        assert (code, got) == (0, status), (words, answer)
        if kind:
            assert answer["type"] == f"/problems/{kind}" and answer["status"] == status and answer["detail"]
    for pair in (expired, stranger.client("read.example.org")):
        code, status, _ = curl(door, *shown(pair))
        assert code and not status, "a certificate that is not believed ends the connection"
    assert curl(door, *bearer(door.tokens["read"]), ca=stranger.certificate)[0] == 60, "curl must not believe the director then"
    assert door.host.run(["curl", "-sS", "-m", "5", "http://127.0.0.1:8443/livez"], check=False).returncode, "no answer without TLS"


def test_roles_allow_what_they_say_and_every_write_is_written_down(door):
    before = len(audited(door))
    create = ["-X", "POST", "-d", json.dumps(SERVICE)]
    certificate = shown(door.ca.client("operate.example.org"))
    for who, words, path, status in (
        ("read", create, "/api/v1/services", 403),
        ("operate", create, "/api/v1/services", 403),
        ("admin", create, "/api/v1/services", 201),
        ("read", ["-X", "POST"], "/api/v1/services/zero", 403),
        ("operate", ["-X", "POST"], "/api/v1/services/zero", 204),
        ("operate", ["-X", "DELETE"], "/api/v1/services", 403),
        ("admin", ["-X", "DELETE"], "/api/v1/services", 204),
        (None, ["-X", "DELETE"], "/api/v1/services", 401),
    ):
        _, got, answer = curl(door, *words, *(bearer(door.tokens[who]) if who else []), path=path)
        assert got == status, (who, words, answer)
    assert curl(door, *certificate, "-X", "POST", path="/api/v1/services/zero", url=FAR)[1] == 204
    door.director.api.raw("DELETE", "services")
    entries = audited(door)[before:]
    assert [entry["status"] for entry in entries] == [403, 403, 201, 403, 204, 403, 204, 401, 204, 204]
    assert entries[2]["who"] == {"kind": "token", "name": "admin"} and entries[2]["revision"] > 0
    assert (entries[2]["method"], entries[2]["path"]) == ("POST", "/api/v1/services") and entries[2]["from"].startswith("127.0.0.1:")
    assert entries[7]["who"] == {"kind": "nobody"}
    assert entries[8]["who"] == {"kind": "certificate", "subject": "CN=operate.example.org, O=Example"}
    assert entries[9]["who"] == {"kind": "local", "uid": 0, "user": "root"} and entries[9]["from"] == "unix"
    assert not any(token in (door.folder / "audit").read_text() for token in door.tokens.values())


def test_socket_has_the_mode_that_was_asked_for(door):
    assert oct(door.director.api.path.stat().st_mode)[-3:] == "600"


def test_metrics_are_open_by_themselves(door):
    def get(path, *words):
        done = door.host.run(["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", *words, f"http://{DIP}:9100{path}"])
        return int(done.stdout)

    assert [get(path) for path in ("/metrics", "/livez", "/readyz")] == [200, 200, 200]
    assert [get(path) for path in ("/api/v1/services", "/", "/metrics/", "//api/v1/config")] == [404] * 4
    assert get("/metrics", "-X", "POST") == get("/api/v1/services", "-X", "DELETE", *bearer(door.tokens["admin"])) == 404


def test_command_line_comes_in_by_token_and_by_certificate(door):
    ask = f"baton --url {FAR} --cacert {door.ca.certificate}"
    pair = door.ca.client("admin.example.org")
    run = door.director.run
    assert json.loads(run(f"{ask} --token-file {door.folder}/read.token get workers -o json"))[0]["id"] == 0
    run(f"{ask} --cert {pair[0]} --key {pair[1]} ipvsadm -A -t {VIP}:81 -s rr")
    environment = f"BATON_API={FAR} BATON_CACERT={door.ca.certificate} BATON_TOKEN_FILE={door.folder}/admin.token"
    assert f"{VIP}:81 rr" in run(f"{environment} ipvsadm -Ln")
    run(f"{environment} ipvsadm -C")
    for line, part in (
        (f"{ask} get services", "say who you are"),
        (f"{ask} --token-file {door.folder}/read.token settings set sloppy_tcp=1", "has the role read"),
        (f"baton --url {FAR} --token-file {door.folder}/read.token get services", "cannot reach the director"),
        (f"{ask} --token-file /nonexistent get services", "/nonexistent"),
        (f"{ask} --cert {pair[0]} get services", "--key"),
    ):
        done = door.host.run(line, check=False)
        assert done.returncode and part in done.stderr, (line, done.stderr)


def test_certificates_and_audit_log_are_taken_anew_on_sighup(door):
    old, new = door.ca, Authority(door.folder, "new")
    moved = door.folder / "audit.1"
    certificate, key = new.server()
    try:
        for content, believed in ((b"nonsense", old), (certificate.read_bytes(), new)):
            (door.folder / "cert.pem").write_bytes(content)
            (door.folder / "key.pem").write_bytes(key.read_bytes())
            (door.folder / "audit").rename(moved)
            door.director.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 10
            while not (door.folder / "audit").exists():
                assert time.monotonic() < until, door.director.log()
                time.sleep(0.05)
            assert curl(door, *bearer(door.tokens["read"]), ca=believed.certificate)[1] == 200, door.director.log()
        assert curl(door, *bearer(door.tokens["read"]), ca=old.certificate)[0] == 60
        door.director.api.raw("POST", "services/zero")
        assert len(audited(door)) == 1
    finally:
        door.ca = new


def test_open_door_is_refused_by_name(lonely):
    text = config_text(lonely.device)
    tls = 'tls = { certificate = "/c", key = "/k" }'
    token = '[[control.token]]\nname = "a"\nrole = "read"\nsha256 = "' + 64 * "0" + '"\n'
    for lines, more, part in (
        (f'listen = "{DIP}:80"', "", "needs control.tls"),
        (f'listen = "{DIP}:80"', token, "needs control.tls"),
        (f'listen = "{DIP}:80"\n{tls}', "", "[[control.token]]"),
        (f'listen = "[::]:80"\n{tls}', "", "[[control.token]]"),
    ):
        path = lonely.director.folder / "open.toml"
        path.write_text((text + more).replace("[control]", f"[control]\n{lines}", 1))
        done = lonely.director.run(["baton", "check", "--config", path], check=False)
        assert done.returncode == 1 and "control.listen" in done.stderr and part in done.stderr, done.stderr
    path.write_text((text + token).replace("[control]", f'[control]\nlisten = "{DIP}:80"\n{tls}', 1))
    assert lonely.director.run(["baton", "check", "--config", path], check=False).returncode == 0
    status, said = Director(lonely.director, path.read_text()).fails_to_start()
    assert status > 0 and "control.tls: /c" in said, said


def test_loopback_without_tokens_is_for_reading(lonely):
    text = config_text(lonely.device).replace("[control]", '[control]\nlisten = "127.0.0.1:8081"', 1)
    with Director(lonely.director, text):
        assert lonely.director.run("baton --api http://127.0.0.1:8081 get services").returncode == 0
        done = lonely.director.run("baton --api http://127.0.0.1:8081 settings set sloppy_tcp=1", check=False)
        assert done.returncode == 1 and "somebody on this machine has the role read" in done.stderr, done.stderr


# -- hostile clients ------------------------------------------------------------------------------------------------------------------------

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW", "get", ""]
STEPS = ["api", "v1", "services", "tcp:10.10.24.88:80", "real-servers", "10.10.24.21:80", "zero", "connections", "config", "settings", "marks",
         "workers", "events", "metrics", "livez", "..", ".", "%00", "%zz", "%F0%9F%8E%BB", "a" * 3000, "mark:7", "openapi.json", "neighbours", "ports"]
VALUES = [None, True, 0, -1, 2**63, 1e308, "", "tcp", "10.10.24.88", "x" * 10000, [], {}, [[]], {"a": {}}, "\u0000", "2s"]
FIELDS = ["protocol", "address", "port", "scheduler", "real_servers", "health", "type", "weight", "persistence", "timeout", "services", "settings",
          "marks", "mark", "destination", "revision", "flags", "interval", "method", "tunnel"]

HEADERS = ["X-A", "Accept", "Authorization", "If-Match", "Expect", "Transfer-Encoding", "Content-Type", "é"]
CONTENTS = ["*", "", "chunked", "Bearer x", "100-continue", '"7"', "x" * 5000]


def any_document(dice, depth=3):
    """A document that looks like ours, more or less."""
    if depth == 0 or dice.random() < 0.3:
        return dice.choice(VALUES)
    if dice.random() < 0.3:
        return [any_document(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {dice.choice(FIELDS): any_document(dice, depth - 1) for _ in range(dice.randrange(6))}


def any_request(dice):
    """Bytes that are a request, or nearly."""
    if dice.random() < 0.1:
        return dice.randbytes(dice.randrange(1, 2000))
    path = "/" + "/".join(dice.choice(STEPS) for _ in range(dice.randrange(7)))
    if dice.random() < 0.6:
        path = "/api/v1/" + "/".join(dice.choice(STEPS[2:]) for _ in range(dice.randrange(1, 5)))
    if dice.random() < 0.3:
        path += "?" + "&".join(f"{dice.choice(FIELDS)}={dice.choice(['1', '', 'x', '%ff', '9' * 40])}" for _ in range(dice.randrange(4)))
    body = json.dumps(any_document(dice)).encode() if dice.random() < 0.8 else dice.randbytes(dice.randrange(3000))
    lines = [f"{dice.choice(METHODS)} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body) + dice.choice([0, 0, 0, 0, -1, 1, 10**12])}"]
    lines += [f"{dice.choice(HEADERS)}: {dice.choice(CONTENTS)}" for _ in range(dice.randrange(5))]
    return ("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode("utf-8", "replace") + body


def exchange(connection, request):
    """Sends bytes and reads what comes back, for half a second at most without any."""
    with contextlib.closing(connection):
        connection.settimeout(0.5)
        said = b""
        with contextlib.suppress(OSError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while len(said) < 1 << 20 and (piece := connection.recv(65536)):
                said += piece
        return said


def test_any_bytes_draw_out_neither_an_internal_error_nor_memory(wire):
    dice = random.Random(5)
    path = str(wire.director.api.path)

    def send(count):
        for _ in range(count):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            request = any_request(dice)
            said = exchange(connection, request)
            status = said[9:12].decode(errors="replace")
            assert not said or (said.startswith(b"HTTP/1.1 ") and status.isdigit() and status != "500"), (request[:500], said[:500])

    send(100)
    before = wire.director.memory_kib()
    send(500)
    assert wire.director.memory_kib() < before + (48 << 10)
    assert wire.director.is_ready()
    wire.director.clear()


def test_slow_clients_are_cut_off_and_others_are_served_meanwhile(lonely):
    text = config_text(lonely.device).replace("[control]", '[control]\nlisten = "127.0.0.1:8081"', 1)
    with Director(lonely.director, text) as director, contextlib.ExitStack() as stack:
        slow = []
        for _ in range(300):
            connection = stack.enter_context(lonely.director.socket())
            connection.connect(("127.0.0.1", 8081))
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            slow.append(connection)
        assert director.api.raw("GET", "/livez")[0] == 200, "the unix socket has connections of its own"
        until, cut = time.monotonic() + 25, set()
        while len(cut) < 256 and time.monotonic() < until:
            for connection in slow:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    try:
                        connection.send(b"a")
                        if connection.recv(4096) == b"":
                            cut.add(connection)
                    except ConnectionError:
                        cut.add(connection)
            time.sleep(0.5)
        assert len(cut) >= 256, "a byte now and then must not keep a connection for ever"
        assert lonely.director.run(["curl", "-sS", "-m", "15", "http://127.0.0.1:8081/livez"]).stdout == "ok\n"


def test_endless_headers_and_bodies_are_refused(wire):
    path = str(wire.director.api.path)
    for head, fill in ((b"GET / HTTP/1.1\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"), (b"GET /" + b"a" * 100, b"a" * 1000),
                       (b"PUT /api/v1/config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b" " * 1000 + b"\r\n"),
                       (b"PUT /api/v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n", b" " * 1000)):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.settimeout(20)
        sent = 0
        with contextlib.suppress(OSError):
            connection.sendall(head)
            while sent < 64 << 20:
                connection.sendall(fill * 64)
                sent += 64 * len(fill)
        connection.close()
        assert sent < 64 << 20, head
    assert wire.director.is_ready()


def test_bodies_of_a_byte_a_second_are_refused_and_readers_are_served_meanwhile(wire):
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(4):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(wire.director.api.path))
            connection.sendall(b"PUT /api/v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            waiting.append(connection)
        until = time.monotonic() + 25
        while waiting:
            assert time.monotonic() < until, "a byte a second must not keep a request for ever"
            assert wire.director.api.raw("GET", "services")[0] == 200
            answered, _, _ = select.select(waiting, [], [], 1)
            for connection in answered:
                assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
                waiting.remove(connection)
            for connection in waiting:
                # It may be answered and closed by now: then the answer is read next.
                with contextlib.suppress(OSError):
                    connection.sendall(b" ")


def test_garbage_in_place_of_tls_costs_no_memory_and_others_are_served_meanwhile(door):
    dice = random.Random(9)

    def send(count):
        for _ in range(count):
            hello = b"\x16\x03\x01" + dice.randrange(1 << 16).to_bytes(2) + b"\x01" + dice.randbytes(3) + b"\x03\x03"
            connection = door.host.socket()
            connection.connect(("127.0.0.1", 8443))
            said = exchange(connection, dice.choice([hello, b"", b"GET /livez HTTP/1.1\r\n\r\n"]) + dice.randbytes(dice.randrange(20_000)))
            assert not said or said[:1] == b"\x15", said[:100]

    with contextlib.ExitStack() as stack:
        for _ in range(50):
            silent = stack.enter_context(door.host.socket())
            silent.connect(("127.0.0.1", 8443))
            silent.sendall(b"\x16\x03\x01\x02\x00")
        send(30)
        before = door.director.memory_kib()
        send(150)
        assert door.director.memory_kib() < before + (16 << 10)
        assert curl(door, *bearer(door.tokens["read"]))[1] == 200
