"""Frames that are wrong: each is dropped under a reason of its own, nothing else moves, and nothing comes out."""

import random

import pytest

from lab import VIP, VIP6, frames
from lab.frames import arp_request, echo_request, ethernet, ip, neighbour_solicitation, tcp, tcp_segment, udp

CLIENT, CLIENT6 = "198.51.100.1", "fd00:99::1"
RS_MAC = "02:00:00:00:00:15"
STRANGER = "02:00:00:00:ee:ee"
SEGMENT = tcp_segment(CLIENT, VIP, 10000, 80)
SEGMENT6 = tcp_segment(CLIENT6, VIP6, 10000, 80)

WRONG = [
    ("ethernet header alone", ethernet(0x0800, b"")[:14], "short"),
    ("ipv4 header cut", ethernet(0x0800, ip(CLIENT, VIP, 6, SEGMENT))[:30], "short"),
    ("ipv6 header cut", ethernet(0x86DD, ip(CLIENT6, VIP6, 6, SEGMENT6))[:50], "short"),
    ("arp cut", arp_request("10.10.24.1", VIP)[:30], "short"),
    ("not our mac", tcp(CLIENT, VIP, link={"destination": STRANGER}), "not_our_mac"),
    ("not our mac, ipv6", tcp(CLIENT6, VIP6, link={"destination": STRANGER}), "not_our_mac"),
    ("our own mac as source", tcp(CLIENT, VIP, link={"source": frames.DIRECTOR_MAC}), "own_mac_source"),
    ("unknown ether type", ethernet(0x88B5, bytes(46)), "ether_type"),
    ("vlan tag", ethernet(0x8100, b"\0\7\x08\0" + ip(CLIENT, VIP, 6, SEGMENT)), "unknown_vlan"),
    ("802.3 length instead of a type", ethernet(46, bytes(46)), "ether_type"),
    ("version 6 in ipv4", tcp(CLIENT, VIP, version=6), "bad_version"),
    ("version 4 in ipv6", tcp(CLIENT6, VIP6, version=4), "bad_version"),
    ("version 0", tcp(CLIENT, VIP, version=0), "bad_version"),
    ("ihl 4", tcp(CLIENT, VIP, ihl=4), "bad_header_length"),
    ("ihl 0", tcp(CLIENT, VIP, ihl=0), "bad_header_length"),
    ("tcp data offset 4", tcp(CLIENT, VIP, offset=4), "bad_header_length"),
    ("tcp data offset past the end", tcp(CLIENT, VIP, offset=15), "bad_header_length"),
    ("tcp data offset 0, ipv6", tcp(CLIENT6, VIP6, offset=0), "bad_header_length"),
    ("total length below the header", tcp(CLIENT, VIP, total_length=16), "bad_length"),
    ("total length beyond the frame", tcp(CLIENT, VIP, total_length=1500), "bad_length"),
    ("total length cuts the tcp header", tcp(CLIENT, VIP, total_length=30), "bad_length"),
    ("payload length beyond the frame", tcp(CLIENT6, VIP6, total_length=1400), "bad_length"),
    ("udp length beyond the packet", udp(CLIENT, VIP, length=100), "bad_length"),
    ("udp length below its header", udp(CLIENT, VIP, length=4), "bad_length"),
    ("ipv4 header checksum", tcp(CLIENT, VIP, bad_checksum=True), "bad_checksum"),
    ("source loopback", tcp("127.0.0.1", VIP), "martian_source"),
    ("source multicast", tcp("224.0.0.1", VIP), "martian_source"),
    ("source broadcast", tcp("255.255.255.255", VIP), "martian_source"),
    ("source unspecified", tcp("0.0.0.0", VIP), "martian_source"),
    ("source ipv6 loopback", tcp("::1", VIP6), "martian_source"),
    ("source ipv6 multicast", tcp("ff02::1", VIP6), "martian_source"),
    ("source ipv4-mapped", tcp("::ffff:198.51.100.1", VIP6), "martian_source"),
    ("source is the vip", tcp(VIP, VIP), "own_source"),
    ("source is the ipv6 vip", tcp(VIP6, VIP6), "own_source"),
    ("arp of another hardware type", arp_request("10.10.24.1", VIP, hardware=6), "bad_neighbour_message"),
    ("arp with wrong address lengths", arp_request("10.10.24.1", VIP, lengths=(6, 16)), "bad_neighbour_message"),
    ("solicitation from beyond a router", neighbour_solicitation("fd00:10::1", VIP6, hop_limit=254), "bad_neighbour_message"),
    ("solicitation with an option of length 0", neighbour_solicitation("fd00:10::1", VIP6, option_length=0), "bad_neighbour_message"),
    ("solicitation with a wrong checksum", neighbour_solicitation("fd00:10::1", VIP6, bad_checksum=True), "bad_checksum"),
]

RIGHT = [
    ("syn", tcp(CLIENT, VIP), {"forwarded": 1, "sent": 1}),
    ("syn, ipv6", tcp(CLIENT6, VIP6), {"forwarded": 1, "sent": 1}),
    ("syn with wrong tcp checksum", tcp(CLIENT, VIP)[:50] + b"\0\0" + tcp(CLIENT, VIP)[52:], {"forwarded": 1, "sent": 1}),
    ("udp", udp(CLIENT, VIP), {"forwarded": 1, "sent": 1}),
    ("ttl 1", tcp(CLIENT, VIP, sport=10001, ttl=1), {"forwarded": 1, "sent": 1}),
    ("arp for the vip", arp_request("10.10.24.1", VIP), {"answered": 1, "sent": 1}),
    ("ping of the vip", echo_request("10.10.24.1", VIP), {"answered": 1, "sent": 1}),
]


def names(rows):
    """Names of a table's rows, for pytest."""
    return [row[0] for row in rows]


@pytest.fixture
def served(wire):
    """TCP and UDP services on both VIPs, with real servers that need no neighbour discovery."""
    for protocol, vip, port, server in (("tcp", VIP, 80, "10.10.24.21"), ("udp", VIP, 53, "10.10.24.21"), ("tcp", VIP6, 80, "fd00:10::21")):
        key = f"{protocol}:{f'[{vip}]' if ':' in vip else vip}:{port}"
        wire.director.api.put(f"services/{key}", {
            "protocol": protocol, "address": vip, "port": port, "real_servers": [{"address": server, "mac": RS_MAC}]})
    wire.cable.frames()
    return wire


def came_out(network):
    """What the director sent because of us: not the kernel's own multicast, not announcements of VIPs."""
    return [frame.bytes for frame in network.cable.frames() if not frame.outgoing and not frame.bytes[0] & 1]


@pytest.mark.parametrize("name, frame, reason", WRONG, ids=names(WRONG))
def test_malformed_frame_is_dropped_under_its_own_reason(served, name, frame, reason):
    with served.director.counting(1) as counted:
        served.cable.send(frame)
    # The kernel beside us and the announcements of VIPs may send meanwhile; they receive nothing.
    moved = {key: number for key, number in counted.moved.items() if key not in ("injected", "sent")}
    assert moved == {"received": 1, reason: 1}
    assert counted.moved.get("sent", 0) == counted.moved.get("injected", 0)
    assert came_out(served) == []
    assert served.director.api.connections() == []


@pytest.mark.parametrize("name, frame, expected", RIGHT, ids=names(RIGHT))
def test_right_frame_moves_only_its_own_counters(served, name, frame, expected):
    with served.director.counting(1) as counted:
        served.cable.send(frame)
    moved = dict(counted.moved)
    moved["sent"] -= moved.pop("injected", 0)
    assert moved == {"received": 1, **expected}
    assert len(came_out(served)) == 1


def test_truncation_at_every_byte_is_survived_and_accounted_for(served):
    whole = [tcp(CLIENT, VIP), udp(CLIENT, VIP), tcp(CLIENT6, VIP6), echo_request("10.10.24.1", VIP), arp_request("10.10.24.1", VIP),
             neighbour_solicitation("fd00:10::1", VIP6)]
    cut = [frame[:length] for frame in whole for length in range(14, len(frame))]
    with served.director.counting(len(cut)) as counted:
        for frame in cut:
            served.cable.send(frame)
    # An ARP message or a minimal TCP packet is whole before the padding of its frame is.
    assert counted.moved["short"] + counted.moved.get("bad_length", 0) > len(cut) // 2
    assert served.director.is_ready()


def test_random_bytes_are_survived_and_accounted_for(served):
    source = random.Random(2)
    header = frames.mac(frames.DIRECTOR_MAC) + frames.mac(frames.PEER_MAC)
    # No VLAN tags: the sending kernel drops those that are cut.
    noise = [header + source.choice((b"\x08\0", b"\x86\xdd", b"\x08\x06", b"\x88\xb5")) + source.randbytes(source.randrange(0, 200)) for _ in range(2000)]
    with served.director.counting(len(noise)):
        for at in range(0, len(noise), 100):
            served.cable.send(*noise[at:at + 100])
            served.director.api.raw("GET", "/livez")
    assert served.director.is_ready()
