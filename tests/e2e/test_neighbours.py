"""ARP and neighbour discovery: what the director answers, what it announces, and what it needs to know before it schedules."""

import threading
import time

import pytest
from networks import configure

from lab import DIP, DIP6, VIP, VIP6, fetch, frames
from lab.capture import Frame

ASKER, ASKER6 = "10.10.24.1", "fd00:10::1"
RS_MAC = "02:00:00:00:00:15"


def is_arp(operation, sender=None):
    """A predicate for captured frames."""
    def wanted(frame: Frame):
        return (not frame.outgoing and frame.ether_type == 0x0806 and frame.bytes[20:22] == bytes((0, operation))
                and (sender is None or frame.bytes[28:32] == frames.packed(sender)))
    return wanted


def is_icmp6(kind, target=None):
    """A predicate for captured frames."""
    def wanted(frame: Frame):
        return (not frame.outgoing and frame.protocol == 58 and frame.bytes[54] == kind
                and (target is None or frame.bytes[62:78] == frames.packed(target)))
    return wanted


def serve(wire, vip=VIP, server="10.10.24.21", **more):
    """A TCP service with one real server."""
    wire.director.api.put(f"services/tcp:{f'[{vip}]' if ':' in vip else vip}:80", {
        "protocol": "tcp", "address": vip, "port": 80, "scheduler": "rr", "real_servers": [{"address": server, **more}]})


@pytest.mark.parametrize("address", [VIP, DIP])
def test_arp_for_vip_and_dip_is_answered_once_with_the_ports_mac(wire, address):
    serve(wire, mac=RS_MAC)
    wire.cable.frames()
    wire.cable.send(frames.arp_request(ASKER, address))
    answer = wire.cable.wait(is_arp(2, address))[-1].bytes
    assert answer[:6] == answer[32:38] == frames.mac(frames.PEER_MAC)
    assert answer[6:12] == answer[22:28] == frames.mac(frames.DIRECTOR_MAC)
    assert answer[38:42] == frames.packed(ASKER)
    time.sleep(0.2)
    assert not [frame for frame in wire.cable.frames() if is_arp(2)(frame)]


@pytest.mark.parametrize("address", [VIP6, DIP6])
def test_neighbour_solicitation_for_vip_and_dip_is_answered_once(wire, address):
    serve(wire, VIP6, "fd00:10::21", mac=RS_MAC)
    wire.cable.frames()
    wire.cable.send(frames.neighbour_solicitation(ASKER6, address))
    # The announcement of a new VIP goes to all nodes; the answer goes to who asked.
    answer = wire.cable.wait(lambda frame: is_icmp6(136, address)(frame) and frame.destination == ASKER6)[-1].bytes
    assert answer[21] == 255 and answer[22:38] == frames.packed(address)
    assert answer[80:86] == frames.mac(frames.DIRECTOR_MAC) and answer[78:80] == b"\2\1"
    assert answer[58] & 0x60 == 0x60, "solicited and override"
    length = int.from_bytes(answer[18:20], "big")
    assert frames.checksum(frames.pseudo(address, ASKER6, 58, length) + answer[54:54 + length]) == 0
    time.sleep(0.2)
    assert not [frame for frame in wire.cable.frames() if is_icmp6(136, address)(frame) and frame.destination == ASKER6]


def test_arp_for_somebody_else_is_not_answered(wire):
    serve(wire, mac=RS_MAC)
    wire.cable.frames()
    wire.cable.send(frames.arp_request(ASKER, "10.10.24.99"), frames.arp_request(ASKER, "10.10.24.21"))
    time.sleep(0.3)
    assert not [frame for frame in wire.cable.frames() if is_arp(2)(frame)]


def test_vip_is_no_longer_answered_for_once_its_service_is_gone(wire):
    serve(wire, mac=RS_MAC)
    wire.director.api.delete(f"services/tcp:{VIP}:80")
    wire.cable.frames()
    wire.cable.send(frames.arp_request(ASKER, VIP))
    time.sleep(0.3)
    assert not [frame for frame in wire.cable.frames() if is_arp(2, VIP)(frame)]


def test_vip_that_appears_is_announced_with_gratuitous_arp(wire):
    serve(wire, mac=RS_MAC)
    announcement = wire.cable.wait(lambda frame: is_arp(1, VIP)(frame) or is_arp(2, VIP)(frame))[-1].bytes
    assert announcement[:6] == b"\xff" * 6 and announcement[6:12] == announcement[22:28] == frames.mac(frames.DIRECTOR_MAC)
    assert announcement[28:32] == announcement[38:42] == frames.packed(VIP)


def test_vip_that_appears_is_announced_with_an_unsolicited_advertisement(wire):
    serve(wire, VIP6, "fd00:10::21", mac=RS_MAC)
    announcement = wire.cable.wait(is_icmp6(136, VIP6))[-1].bytes
    assert announcement[38:54] == frames.packed("ff02::1") and announcement[:6] == frames.mac("33:33:00:00:00:01")
    assert announcement[58] & 0xE0 == 0x20, "override, neither router nor solicited"
    assert announcement[80:86] == frames.mac(frames.DIRECTOR_MAC)


@pytest.mark.parametrize("vip, server, answer", [
    (VIP, "10.10.24.21", lambda: frames.arp_reply("10.10.24.21", RS_MAC, DIP)),
    (VIP6, "fd00:10::21", lambda: frames.neighbour_advertisement("fd00:10::21", RS_MAC, DIP6)),
], ids=["v4", "v6"])
def test_real_server_without_mac_is_not_scheduled_and_shows_why(wire, vip, server, answer):
    key, client = (f"tcp:[{vip}]:80", "fd00:99::1") if ":" in vip else (f"tcp:{vip}:80", "198.51.100.1")
    serve(wire, vip, server)
    [shown] = wire.director.api.service(key)["real_servers"]
    assert shown["state"] == "no-mac" and shown["mac"] is None and server in shown["reason"]
    with wire.director.counting(1) as counted:
        wire.cable.send(frames.tcp(client, vip))
    assert counted.moved.get("no_real_server") == 1 and "forwarded" not in counted.moved

    asked = is_arp(1, DIP) if ":" not in vip else is_icmp6(135, server)
    wire.cable.frames()
    wire.cable.wait(asked, timeout=10)
    wire.cable.send(answer())
    until = time.monotonic() + 5
    while shown["state"] != "ready" and time.monotonic() < until:
        time.sleep(0.02)
        [shown] = wire.director.api.service(key)["real_servers"]
    assert shown["state"] == "ready" and shown["mac"] == RS_MAC and not shown["reason"]
    wire.cable.frames()
    wire.cable.send(frames.tcp(client, vip))
    forwarded = wire.cable.wait(lambda frame: not frame.outgoing and frame.protocol == 6)[-1].bytes
    assert forwarded[:6] == frames.mac(RS_MAC)


def test_static_mac_needs_no_question(wire):
    serve(wire, server="10.10.24.24", mac="02:00:00:00:00:18")
    [shown] = wire.director.api.service(f"tcp:{VIP}:80")["real_servers"]
    assert shown["state"] == "ready" and shown["mac"] == "02:00:00:00:00:18"
    time.sleep(0.3)
    questions = [frame for frame in wire.cable.frames() if is_arp(1, DIP)(frame) and frame.bytes[38:42] == frames.packed("10.10.24.24")]
    assert not questions


@pytest.mark.parametrize("source, vip", [(ASKER, VIP), (ASKER6, VIP6)])
def test_echo_to_a_vip_is_answered_to_the_mac_that_it_came_from(wire, source, vip):
    serve(wire, vip, "fd00:10::21" if ":" in vip else "10.10.24.21", mac=RS_MAC)
    wire.cable.frames()
    with wire.director.counting(1) as counted:
        wire.cable.send(frames.echo_request(source, vip))
    answers = [frame.bytes for frame in wire.cable.frames() if not frame.outgoing and frame.source == vip and frame.destination == source]
    assert len(answers) == 1 and answers[0][:6] == frames.mac(frames.PEER_MAC)
    assert b"is anybody there" in answers[0]
    assert counted.moved["answered"] == 1


def test_clients_are_refused_only_once_a_real_server_had_its_time_to_answer(wire):
    serve(wire, server="10.10.24.77")
    syn = frames.tcp(ASKER, VIP)
    is_refusal = lambda frame: not frame.outgoing and frame.protocol == 1 and frame.bytes[34:36] == b"\3\3"
    before = wire.director.api.counters().get("no_real_server", 0)
    wire.cable.frames()
    wire.cable.send(syn)
    time.sleep(0.3)
    assert wire.director.api.counters()["no_real_server"] == before + 1
    assert not [frame for frame in wire.cable.frames() if is_refusal(frame)]
    until = time.monotonic() + 10
    refused = []
    while not refused and time.monotonic() < until:
        wire.cable.send(syn)
        time.sleep(0.2)
        refused = [frame for frame in wire.cable.frames() if is_refusal(frame)]
    assert refused, "a real server that is not there is not waited for"


def test_client_reaches_a_real_server_that_answers_for_its_mac_late(classic):
    server = classic.servers[0]
    server.sysctl("net.ipv4.conf.eth0.arp_ignore", 8)
    late = threading.Timer(0.8, server.sysctl, ("net.ipv4.conf.eth0.arp_ignore", 1))
    try:
        configure(classic, VIP, weights=(1,))
        late.start()
        assert fetch(classic.client, VIP)[0] == "rs1"
    finally:
        late.join()
