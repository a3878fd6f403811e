"""Bonds of two devices, and workers that wait for interrupts."""

import contextlib
import json
import socket
import struct
import threading
import time

import pytest

from lab import VIP, Capture, Director, Lab, config_text, frames
from lab.frames import arp_request, tcp

CLIENT, SERVER_MAC = "198.51.100.1", "02:00:00:00:02:15"
BOND_MAC = "02:00:00:00:d0:00"
SLOW, LACP_GROUP = 0x8809, "01:80:c2:00:00:02"


class Cables(Lab):
    """A director's host with two cables, d0 and d1, to p0 and p1 on another one; or TAPs of those names, which come with the director."""

    def __init__(self, taps=False):
        super().__init__()
        self.taps = taps

    def build(self):
        self.director, self.peer = self.host("director"), self.host("peer")
        for host in (self.director, self.peer):
            host.sysctl("net.ipv4.conf.default.arp_ignore", 8)
            host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        for number, mac in enumerate(() if self.taps else (BOND_MAC, "02:00:00:00:d1:00")):
            self.link(self.director, f"d{number}", self.peer, f"p{number}", mac=mac)

    def far_ends(self):
        """Host and device at the end of each cable."""
        return [(self.director, "d0"), (self.director, "d1")] if self.taps else [(self.peer, "p0"), (self.peer, "p1")]

    def quieten(self):
        """Keeps the kernel from answering on TAPs."""
        for device in ("d0", "d1") if self.taps else ():
            self.director.sysctl(f"net.ipv4.conf.{device}.arp_ignore", 8)
            self.director.sysctl(f"net.ipv6.conf.{device}.disable_ipv6", 1)
            self.director.ip(f"link set {device} up")


TAPS = (f"net_tap0,iface=d0,mac={BOND_MAC}", "net_tap1,iface=d1")
VETHS = ("net_af_packet0,iface=d0", "net_af_packet1,iface=d1")


def config(mode, members):
    text = config_text("net_null0", gateways=())
    return text.replace('device = "net_null0"', f'members = {json.dumps(members)}\nbond = "{mode}"')


@contextlib.contextmanager
def bond(mode, members):
    """A director on a bond, and both far ends."""
    with Cables(members is TAPS) as lab, Director(lab.director, config(mode, members), started=lab.quieten) as director:
        [one, other] = lab.far_ends()
        with Capture(*one) as first, Capture(*other) as second:
            director.api.post("services", {
                "protocol": "tcp", "address": VIP, "port": 80, "real_servers": [{"address": "10.10.24.21", "mac": SERVER_MAC}]})
            yield director, first, second


def answers(cable, seconds=0.0):
    """Whether an answer to ARP for the VIP came by this cable."""
    until = time.monotonic() + seconds
    while True:
        for frame in cable.frames():
            if not frame.outgoing and frame.ether_type == 0x0806 and frame.bytes[20:22] == b"\0\2":
                assert frame.bytes[22:28] == frames.mac(BOND_MAC)
                return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)


def is_announcement(frame):
    """Whether it is the gratuitous ARP for the VIP; what fills the frame aside."""
    return not frame.outgoing and frame.bytes[:42] == arp_request(VIP, VIP, BOND_MAC)[:42]


def ask(cable):
    cable.send(arp_request("10.10.24.1", VIP))


def wait_for(what, seconds=8.0):
    until = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return answer


def members(director):
    [port] = [port for port in director.api.get("ports") if port["name"] == "lan"]
    return port


# Drivers that stand on an interface of the kernel tell the bond nothing of its link; net_tap, as those of NICs do, answers when it is asked.
@pytest.mark.parametrize("devices", [VETHS, TAPS], ids=["af_packet", "tap"])
def test_another_member_takes_over_when_the_link_of_the_active_one_goes(devices):
    with bond("active-backup", devices) as (director, first, second):
        [(host, one), (_, other)] = director.host.lab.far_ends()
        port = members(director)
        assert (port["driver"], port["mac"], port["link_up"]) == ("net_bonding", BOND_MAC, True)
        assert [(member["link_up"], member["active"]) for member in port["members"]] == [(True, True), (True, False)]
        assert f"member {devices[0]}, link up, active" in director.run("baton get ports")
        # What is announced of a new VIP is over when the link goes.
        for _ in range(3):
            first.wait(is_announcement)
        ask(first)
        assert answers(first, 3) and not answers(second)
        host.ip(f"link set {one} down")
        states = [(False, False), (True, True)]
        wait_for(lambda: [(member["link_up"], member["active"]) for member in members(director)["members"]] == states)
        assert members(director)["link_up"]
        # The switch learns without being asked where the VIP is now.
        second.wait(is_announcement, timeout=10)
        wait_for(lambda: ask(second) or answers(second, 0.3))
        second.send(tcp(CLIENT, VIP, sport=13000))
        frame = second.wait(lambda frame: not frame.outgoing and frame.ports == (13000, 80))[-1]
        assert frame.bytes[:6] == frames.mac(SERVER_MAC)
        host.ip(f"link set {other} down")
        wait_for(lambda: not members(director)["link_up"])


def lacp(actor_port, partner):
    """A LACPDU of a switch that does what its partner, 18 bytes as it says of itself, wants (IEEE 802.1AX 6.4.2)."""
    ours = struct.pack("!H6sHHHB3x", 0x8000, bytes.fromhex("0c0000000001"), 1, 0x8000, actor_port, 0x3D)
    body = b"\x01\x01" + b"\x01\x14" + ours + b"\x02\x14" + partner + b"\x03\x10" + bytes(14) + bytes(52)
    return frames.mac(LACP_GROUP) + bytes.fromhex(f"0c00000001{actor_port:02x}") + struct.pack("!H", SLOW) + body


class Switch(threading.Thread):
    """Answers every LACPDU on both cables."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.sockets = {}
        for number, device in enumerate(("d0", "d1"), 1):
            self.sockets[number] = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(SLOW))
            self.sockets[number].bind((device, SLOW))
            self.sockets[number].settimeout(0.05)
        self.over = threading.Event()
        self.heard = {1: 0, 2: 0}

    def run(self):
        while not self.over.is_set():
            for number, cable in self.sockets.items():
                try:
                    data, address = cable.recvfrom(256)
                except TimeoutError:
                    continue
                if address[2] != 4 and data[14] == 1:
                    self.heard[number] += 1
                    cable.send(lacp(number, data[18:36]))


def test_all_members_carry_flows_when_the_switch_speaks_lacp():
    with bond("802.3ad", TAPS) as (director, first, second):
        switch = Switch(director.host)
        switch.start()
        try:
            # Both are agreed on within seconds, and each flow then leaves by one of them.
            seen = {0: set(), 1: set()}

            def both():
                for sport in range(14000, 14040):
                    (first, second)[sport % 2].send(tcp(CLIENT, VIP, sport=sport))
                time.sleep(0.2)
                for number, cable in enumerate((first, second)):
                    seen[number] |= {frame.ports[0] for frame in cable.frames() if not frame.outgoing and frame.ports and frame.ports[1] == 80}
                return len(seen[0]) > 5 and len(seen[1]) > 5

            wait_for(both, 30)
            assert all(switch.heard.values()), "LACP on both"
        finally:
            switch.over.set()
            switch.join()
        assert not members(director)["promiscuous"]


@pytest.mark.parametrize("idle", ["interrupt", "poll"])
def test_worker_that_waits_for_interrupts_forwards_all(idle):
    with Cables(taps=True) as lab:
        text = config_text(f"net_tap0,iface=d0,mac={BOND_MAC}", gateways=()).replace("[control]", f'idle = "{idle}"\n\n[control]', 1)
        with Director(lab.director, text) as director:
            lab.director.sysctl("net.ipv4.conf.d0.arp_ignore", 8)
            lab.director.ip("link set d0 up")
            assert not any("interrupts" in lack for lack in members(director).get("lacks", []))
            director.api.post("services", {
                "protocol": "tcp", "address": VIP, "port": 80, "real_servers": [{"address": "10.10.24.21", "mac": SERVER_MAC}]})
            with Capture(lab.director, "d0") as cable:
                for sport in range(15000, 15020):
                    # Long enough for the worker to rest between two frames.
                    time.sleep(0.03)
                    cable.send(tcp(CLIENT, VIP, sport=sport))
                    cable.wait(lambda frame, sport=sport: not frame.outgoing and frame.ports == (sport, 80))
            turns = [worker_turns(director) for _ in range(2)]
            assert turns[1] > turns[0]
            resting = turns[1] - turns[0] < 20_000
            assert resting == (idle == "interrupt"), turns


def worker_turns(director):
    """How often the worker has turned, half a second from now."""
    time.sleep(0.5)
    text = director.api.raw("GET", "/metrics")[1]
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("baton_worker_turns"))


def test_port_without_interrupts_is_named_and_its_worker_sleeps(lonely):
    text = config_text(lonely.device).replace("[control]", 'idle = ["interrupt"]\n\n[control]', 1)
    with Director(lonely.director, text) as director:
        assert "port lan: no receive interrupts: workers that are to wait for them sleep" in director.run("baton get ports")
