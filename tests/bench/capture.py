"""Captures for DPDK's net_pcap: 64-byte TCP segments (60 and the FCS), one of each flow."""

import struct

from lab import frames
from lab.topology import VIP

# What DPDK gives the first port of its driver net_pcap.
PORT_MAC = bytes.fromhex("027063617000")
SECOND_PORT_MAC = bytes.fromhex("027063617001")
PORTS = 60_000


def client(flow):
    """Address and port of a flow's client."""
    network = flow // PORTS
    return f"198.18.{network >> 8}.{network & 255}", 1024 + flow % PORTS


def write(path, flows, first=0, rounds=1, mac=PORT_MAC):
    """A segment of each flow from `first` on, in the order of a multiplicative walk, so that neighbours are not neighbours."""
    step, templates = 7919, {}
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        head = struct.pack("<IIII", 0, 0, 60, 60)
        for n in range(flows * rounds):
            source, port = client(first + n * step % flows)
            if source not in templates:
                # Direct routing does not look at the TCP checksum, so the port alone changes.
                frame = mac + frames.tcp(source, VIP, 0, 80, "A")[6:]
                templates[source] = head + frame[:34], frame[36:]
            before, after = templates[source]
            out.write(before + port.to_bytes(2, "big") + after)


def endless(*paths):
    """The DPDK device that gives the captures again and again, from memory, one for each queue, and takes frames to drop them."""
    return "net_pcap0," + ",".join(f"rx_pcap={path}" for path in paths) + ",infinite_rx=1"


def once(path):
    """The DPDK device that gives the capture once."""
    return f"net_pcap1,rx_pcap={path}"
