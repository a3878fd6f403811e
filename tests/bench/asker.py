"""Keeps a director's control plane busy until its standard input ends, then says how much a second it got.

usage: asker.py SOCKET requests|rows
"""

import json
import re
import select
import socket
import sys
import time

RATE = 1000
PAGE = 10_000


class Connection:
    """One connection that is kept; reads answers by their Content-Length."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def get(self, path):
        """The answer's body."""
        self.socket.sendall(f"GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._more()
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"GET {path}: {head.decode(errors='replace')}")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        parts, have = [body], len(body)
        while have < length:
            parts.append(self._more())
            have += len(parts[-1])
        return b"".join(parts)

    def _more(self):
        got = self.socket.recv(1 << 20)
        if not got:
            raise SystemExit("the director closed the connection")
        return got


def ended():
    """Whether whoever started this wants it to end."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main():
    path, what = sys.argv[1:]
    connection, start, count = Connection(path), time.monotonic(), 0
    if what == "requests":
        while not ended():
            connection.get("settings")
            count += 1
            time.sleep(max(0.0, start + count / RATE - time.monotonic()))
    else:
        cursor = None
        while not ended():
            page = connection.get(f"connections?limit={PAGE}" + (f"&cursor={cursor}" if cursor else ""))
            count += page.count(b'"client"')
            found = re.search(rb'"next": ?"([^"]+)"', page[-200:]) or re.search(rb'"next": ?"([^"]+)"', page[:200])
            cursor = found[1].decode() if found else None
    print(json.dumps({what: count / (time.monotonic() - start)}))


if __name__ == "__main__":
    main()
