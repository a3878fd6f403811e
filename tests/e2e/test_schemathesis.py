"""schemathesis asks the real API what its OpenAPI document says can be asked, and much that it says cannot."""

import contextlib
import selectors
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab import Director, config_text
from lab.topology import REPOSITORY

# What a document must be beyond its schema (a VIP that is not the DIP, a real server on a connected network) no schema can say: 422 names it.
NOT_ASKED = "positive_data_acceptance"
# It never ends: what it streams is asked for in test_health.py.
ENDLESS = "/api/v1/events"


@pytest.fixture(scope="module")
def schemathesis():
    """The program, in a virtual environment of its own below target/, in the versions of schemathesis.txt."""
    wanted = Path(__file__).with_name("schemathesis.txt")
    folder = REPOSITORY / "target" / "schemathesis"
    made = folder / "made-of.txt"
    if not made.exists() or made.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r", wanted]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"schemathesis cannot be had from PyPI: {done.stderr}"
        made.write_text(wanted.read_text())
    return folder / "bin" / "schemathesis"


class Through(socketserver.BaseRequestHandler):
    """A connection over TCP brought to the API's unix socket, which has no limit of requests a second."""

    def handle(self):
        with socket.socket(socket.AF_UNIX) as far, selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
            far.connect(self.server.path)
            ways = {self.request: far, far: self.request}
            for end in ways:
                ready.register(end, selectors.EVENT_READ)
            while ways:
                for key, _ in ready.select():
                    piece = key.fileobj.recv(1 << 16)
                    if piece:
                        ways[key.fileobj].sendall(piece)
                    else:
                        ready.unregister(key.fileobj)
                        ways.pop(key.fileobj).shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def over_tcp(path):
    """The URL of an API on a unix socket."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Through) as server:
        server.path, server.daemon_threads = str(path), True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_schemathesis_finds_no_violation(lonely, schemathesis, tmp_path):
    with Director(lonely.director, config_text(lonely.device, gateways=())) as director, over_tcp(director.api.path) as url:
        director.api.post("services", {"protocol": "tcp", "address": "10.10.24.88", "port": 80, "real_servers": [{"address": "10.10.24.21"}]})
        before = director.memory_kib()
        words = [schemathesis, "run", f"{url}/api/v1/openapi.json", "--url", url, "--seed", "1", "--phases", "examples,coverage,fuzzing", "--max-examples", "5",
                 "--max-time", "60", "--exclude-checks", NOT_ASKED, "--exclude-path", ENDLESS, "--request-timeout", "10", "--no-shrink", "--warnings", "off"]
        done = subprocess.run(words, cwd=tmp_path, env={"NO_COLOR": "1", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert director.process.poll() is None and director.is_ready()
        assert director.memory_kib() < before + (128 << 10)
