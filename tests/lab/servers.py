"""The servers that run on real servers: nginx, and a small UDP server. Both say which server answers."""

import time
from pathlib import Path

from .host import inside

FILE_SIZE = 8 << 20
UDP_PORT = 53

NGINX = """daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        add_header X-Real-Server {name};
        location / {{ return 200 "{name}\\n"; }}
        location = /file {{ alias {folder}/file; }}
        location = /slow {{ alias {folder}/file; limit_rate 2m; }}
    }}
}}
"""

UDP = """
import socket, sys
name, port = sys.argv[1].encode(), int(sys.argv[2])
listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
listener.bind(("::", port))
while True:
    # The answer leaves from the address that was asked, the VIP, as a real server's must.
    asked, ancillary, _, client = listener.recvmsg(2048, 512)
    info = [data for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)]
    address = info[0][:16] if info else None
    control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, address + bytes(4))] if address else []
    listener.sendmsg([name + b" " + asked], control, 0, client)
"""


def web_server(host):
    """nginx on port 80, IPv4 and IPv6: `/` tells the server's name, `/file` and `/slow` (2 MB/s) send FILE_SIZE bytes."""
    folder = host.folder / "nginx"
    folder.mkdir()
    (folder / "file").write_bytes(file_content())
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, name=host.name))
    process = host.start(["nginx", "-e", folder / "error.log", "-c", folder / "nginx.conf"], log=folder / "log")
    _wait_for_listener(host, process, "/proc/thread-self/net/tcp", 80, folder / "log")
    return process


def udp_server(host):
    """A server on UDP port 53 that answers `NAME WHAT-WAS-ASKED`."""
    log = host.folder / "udp.log"
    process = host.start(["/usr/bin/python3", "-I", "-c", UDP, host.name, UDP_PORT], log=log)
    _wait_for_listener(host, process, "/proc/thread-self/net/udp6", UDP_PORT, log)
    return process


def file_content():
    """What `/file` and `/slow` send: no two of its blocks are equal, so that a lost or repeated one shows."""
    return b"".join(b"%016x" % number for number in range(FILE_SIZE // 16))


def _wait_for_listener(host, process, table, port, log):
    wanted = f":{port:04X}"
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with inside(host.namespace):
            if any(line.split()[1].endswith(wanted) for line in Path(table).read_text().splitlines()[1:]):
                return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"the server on {host.name} does not listen on port {port}: {Path(log).read_text().strip() or 'it says nothing'}")
