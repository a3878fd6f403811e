"""What the kernel's IPVS did: the recordings, which of them are in scope, and in what form frames and listings are compared.

The files were recorded from Linux 6.1.192 with ipvsadm 1.31: one director port with MAC 02:00:00:00:d0:00, DIP 10.10.24.10/24 and
fd00:10::10/64, VIPs 10.10.24.88 and fd00:10::88, gateways 10.10.24.1 and fd00:10::1, neighbours .1 and .21 to .24 at 02:00:00:00:00:XX (the last
octet in hex), one CPU, no checksum offload, sysctls at their defaults but for those that a scenario names. A scenario is {name, sysctl, steps}; a
step is a frame sent with the frames that came out (pkt, note, out; hex without FCS), a command with its output (cmd, out), or a pause (sleep).

The kernel lowers TTL and hop limit in direct routing, so the director plays with ttl = "decrement".
"""

import json
import re
import struct
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FILES = ("base.json", "more.json", "mixed.json", "passing.json")

# Scenarios that wait for what the director cannot do yet, and what that is. Everything else in the files is played.
LATER = {
}

# Frames that we treat otherwise on purpose, by scenario and note: the kernel fills in a record-route option as if it were a router, we leave a
# client's IP options as they are. Options are not compared there.
OPTIONS_UNTOUCHED = {("malformed", "ip options RR")}

# Seconds by which the time left of an entry may differ: the recorder took longer from step to step than we do.
PACE = 10
TUNNELS = 4, 17, 41, 47
OWN = bytes([10, 10, 24, 88]), bytes([10, 10, 24, 10])
OWN6_PREFIX, OWN6_LAST = bytes.fromhex("fd0000100000"), (0x88, 0x10)


def load():
    """Every recorded scenario, in the files' order."""
    return [scenario for name in FILES for scenario in json.loads((FOLDER / name).read_text())]


def checksum(data):
    """The Internet checksum (RFC 1071) of `data`; 0 over data that holds a right one."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def canonical(frame, ttl="decrement"):
    """What must be equal of a frame, as a tuple.

    Left out: padding, IP ids and UDP source ports that a director makes up, how much an ICMP error quotes, and which of our addresses an IPv6 tunnel comes from (the
    kernel takes the one that it was given last, be it a VIP).
    """
    return _canonical4(frame, ttl) if frame[12:14] == b"\x08\0" else _canonical6(frame, ttl)


def _canonical4(frame, ttl):
    frame = frame[:14 + int.from_bytes(frame[16:18], "big")]
    ends = frame[:6].hex(), frame[6:12].hex()
    header = (frame[14] & 15) * 4
    ip, data = frame[14:14 + header], frame[14 + header:]
    protocol, source, destination = ip[9], ip[12:16], ip[16:20]
    addresses, right = (source.hex(), destination.hex()), checksum(ip) == 0
    if source in OWN:
        if protocol == 1 and data[0] in (3, 11):
            quote = data[6:8] if data[1] == 4 else data[8:36]
            return (*ends, "icmp", data[0], data[1], *addresses, quote.hex(), right and checksum(data) == 0)
        if protocol == 1 and data[0] == 0:
            return (*ends, "echo", *addresses, data.hex(), right)
        if protocol == 6 and data[13] & 4:
            return (*ends, "reset", *addresses, data[:12].hex(), data[13], right)
        if protocol in TUNNELS:
            ip = ip[:4] + bytes(2) + ip[6:10] + bytes(2) + ip[12:]
            data = data if protocol != 17 else _without_source_port(source + destination, data)
    if ttl == "preserve":
        ip = ip[:8] + b"\0" + ip[9:10] + b"\0\0" + ip[12:]
    return (*ends, "forwarded", ip.hex(), data.hex(), right)


def _without_source_port(addresses, datagram):
    """A datagram without its source port, and with a word on its checksum in the place of that."""
    pseudo = addresses + struct.pack("!HH", 17, len(datagram))
    word = b"none" if datagram[6:8] == bytes(2) else b"good" if checksum(pseudo + datagram) == 0 else b"bad "
    return datagram[2:6] + word + datagram[8:]


def _canonical6(frame, ttl):
    frame = frame[:54 + int.from_bytes(frame[18:20], "big")]
    ends = frame[:6].hex(), frame[6:12].hex()
    header, source, destination, data = frame[20], frame[22:38], frame[38:54], frame[54:]
    if source[:6] == OWN6_PREFIX and source[15] in OWN6_LAST:
        if header == 58 and data[0] in (1, 2, 3):
            return (*ends, "icmp6", data[0], data[1], destination.hex(), data[4:8].hex() if data[0] == 2 else "", data[8:48].hex())
        if header == 58 and data[0] == 129:
            return (*ends, "echo6", destination.hex(), data[4:].hex())
        if header == 6 and data[13] & 4:
            return (*ends, "reset6", destination.hex(), data[:12].hex(), data[13])
        if header in TUNNELS or header == 44:
            source = b"one of ours"
        if header == 44:
            data = data[:4] + data[8:]
    limit = "" if ttl == "preserve" else frame[21:22].hex()
    return (*ends, "forwarded6", frame[14:21].hex() + limit, source.hex(), destination.hex(), data.hex())


def is_fragment(frame):
    """Whether a frame is a fragment. The kernel puts datagrams together and takes them apart again where the director sends each fragment on at
    once, so what comes out is the same, but not the moment."""
    if frame[12:14] == b"\x08\0":
        return int.from_bytes(frame[20:22], "big") & 0x3FFF != 0
    return frame[12:14] == b"\x86\xdd" and frame[20] == 44


def has_fragments(scenario):
    """Whether a scenario sends fragments."""
    return any("pkt" in step and is_fragment(bytes.fromhex(step["pkt"])) for step in scenario["steps"])


def without_options(form):
    """A forwarded IPv4 frame's canonical form without its IP options and the checksum over them, whose rightness the form tells."""
    destination, source, kind, header, data, right = form
    return destination, source, kind, header[:20] + header[24:40], data, right


def is_listing_of_connections(command):
    """Whether a command lists connections, whose order is free and whose times run."""
    return "-Lnc" in command


def same_text(command, here, kernel):
    """Whether a command's output is the kernel's, but for the table's size, the order of connections and PACE."""
    here, kernel = (re.sub(r"\(size=\d+\)", "(size=N)", text).rstrip() for text in (here, kernel))
    if "--rate" in command:
        return True
    if not is_listing_of_connections(command):
        return [line.rstrip() for line in here.splitlines()] == [line.rstrip() for line in kernel.splitlines()]
    ours, theirs = _connections(here), _connections(kernel)
    return len(ours) == len(theirs) and all(
        one[0] == other[0] and (one[1] is None or abs(one[1] - other[1]) <= PACE) for one, other in zip(ours, theirs))


def _connections(text):
    """Rows of a connection listing: ((protocol, state and addresses), seconds left), sorted."""
    rows = []
    for line in text.splitlines():
        found = re.match(r"(\S+)\s+(\d+):(\d+)\s+(\S+)\s+(.*)", line)
        words = (found[1], found[4], *found[5].split()) if found else tuple(line.split())
        rows.append((words, int(found[2]) * 60 + int(found[3]) if found else None))
    return sorted(rows, key=lambda row: (row[0], row[1] or 0))
