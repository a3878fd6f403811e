"""Clients: single requests, wrk, and connections that are kept open and watched."""

import re
import selectors
import socket
import time
from collections import Counter

REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


def fetch(host, address, path="/", source_port=0, timeout=5.0):
    """One HTTP request on a connection of its own; returns (server's name, body)."""
    with connect(host, address, source_port=source_port, timeout=timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise AssertionError(f"the answer is not 200: {head[:200]!r}")
    return re.search(rb"X-Real-Server: (\S+)", head)[1].decode(), body


def connect(host, address, port=80, source_port=0, timeout=5.0):
    """A TCP connection from a host to `address`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = host.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        if source_port:
            # The port's connection before this one may still wait for its last acknowledgement.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("", source_port))
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def count_servers(host, address, requests):
    """Sends requests one after the other, each on a connection of its own; returns {server: answers}."""
    return Counter(fetch(host, address)[0] for _ in range(requests))


def ask_udp(host, address, text=b"?", port=53, source_port=0, timeout=2.0):
    """One UDP question; returns the answering server's name."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.socket(family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(timeout)
        asker.bind(("", source_port))
        asker.connect((address, port))
        asker.send(text)
        name, _, echo = asker.recv(2048).partition(b" ")
        assert echo == text, f"the answer {echo!r} is not to the question {text!r}"
        return name.decode()


class WrkResult:
    """What wrk measured: `requests`, `failed` (socket errors, time-outs and answers other than 2xx and 3xx), `rate`, and its whole `text`."""

    def __init__(self, text):
        self.text = text
        self.requests = int(re.search(r"(\d+) requests in", text)[1])
        self.rate = float(re.search(r"Requests/sec:\s*([\d.]+)", text)[1])
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        self.failed = sum(map(int, errors.groups())) if errors else 0
        self.failed += int(other[1]) if other else 0


def wrk_words(address, seconds, connections, close=False):
    """wrk's command line."""
    words = ["wrk", "--threads", "1", "--connections", connections, "--duration", f"{seconds}s", "--timeout", "5s"]
    words += ["--header", "Connection: close"] if close else []
    return [*map(str, words), f"http://{'[' + address + ']' if ':' in address else address}/"]


def wrk(host, address, seconds=5, connections=50, close=False):
    """Load from a host for some seconds."""
    return WrkResult(host.run(wrk_words(address, seconds, connections, close), timeout=seconds + 30).stdout)


class KeepAlive:
    """Connections that stay open, each of which must be answered by the same real server for as long as it lives."""

    def __init__(self, host, address, connections):
        self.sockets = [connect(host, address) for _ in range(connections)]
        self.servers = {}
        self.failures = []
        self.requests = 0
        self._answers = {}
        self._selector = selectors.DefaultSelector()
        for connection in self.sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._selector.close()
        for connection in self.sockets:
            connection.close()

    def round(self, timeout=5.0):
        """One request on every connection; notes every failure and every change of server."""
        waiting = set()
        for connection in self.sockets:
            try:
                connection.send(REQUEST)
                self._answers[connection] = b""
                waiting.add(connection)
            except OSError as error:
                self.failures.append(f"send: {error}")
        until = time.monotonic() + timeout
        while waiting and time.monotonic() < until:
            for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
                self._take(key.fileobj, waiting)
        self.failures += [f"no answer within {timeout} s"] * len(waiting)

    def _take(self, connection, waiting):
        try:
            data = connection.recv(65536)
        except OSError as error:
            data, reason = b"", str(error)
        else:
            reason = "closed"
        if not data:
            self.failures.append(f"receive: {reason}")
            self._selector.unregister(connection)
            self.sockets.remove(connection)
            waiting.discard(connection)
            return
        answer = self._answers[connection] = self._answers.get(connection, b"") + data
        head, found, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if not found or not length or len(body) < int(length[1]):
            return
        waiting.discard(connection)
        self.requests += 1
        name = body.strip().decode()
        if not head.startswith(b"HTTP/1.1 200"):
            self.failures.append(f"status: {head[:40]!r}")
        elif self.servers.setdefault(connection, name) != name:
            self.failures.append(f"moved from {self.servers[connection]} to {name}")
