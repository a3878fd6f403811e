"""VLANs of a port, over a cable on which the tags are made by hand: kernels without 8021q have no device for them."""

import socket
import struct
import time

import pytest

from lab import Director, Wire, config_text, frames
from lab.frames import DIRECTOR_MAC, PEER_MAC, arp_reply, arp_request, echo_request, tcp, udp
from lab.host import inside

VIP, CLIENT = "10.10.24.88", "198.51.100.1"
SERVER, SERVER_MAC = "10.10.200.21", "02:00:00:00:02:15"
Q, AD = 0x8100, 0x88A8
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID, TPID_VALID, OUTGOING = 263, 8, 1 << 4, 1 << 6, 4

MORE = """
[[port.vlan]]
id = 200
addresses = ["10.10.200.10/24"]

[[port.vlan]]
id = 300
outer = 100
name = "guests"
addresses = ["10.10.30.10/24"]
"""


def tagged(frame, *tags):
    """The frame with these tags, outer first."""
    return frame[:12] + b"".join(struct.pack("!HH", kind, number) for kind, number in tags) + frame[12:]


class Trunk:
    """The far end of the cable: sends frames as they are, sees them with the tags that the kernel takes off and tells of beside them."""

    def __init__(self, host, device):
        with inside(host.namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((device, 3))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.settimeout(0.05)

    def send(self, frame, *tags):
        self.socket.send(tagged(frame, *tags))

    def receive(self, wanted, seconds=3.0):
        """The first frame for which `wanted(tags, frame without them)` holds, as (tags, frame); answers ARP for the real server meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                data, beside, _, address = self.socket.recvmsg(4096, 128)
            except TimeoutError:
                continue
            if address[2] == OUTGOING:
                continue
            tags = []
            for _, kind, value in beside:
                status, _, _, _, _, number, protocol = struct.unpack("IIIHHHH", value[:20])
                if kind == PACKET_AUXDATA and status & VLAN_VALID:
                    tags.append((protocol if status & TPID_VALID else Q, number))
            while data[12:14] in (b"\x81\0", b"\x88\xa8"):
                tags.append(struct.unpack("!HH", data[12:16]))
                data = data[:12] + data[16:]
            if tags == [(Q, 200)] and data[12:14] == b"\x08\x06" and data[20:22] == b"\0\1" and data[38:42] == socket.inet_aton(SERVER):
                self.send(arp_reply(SERVER, SERVER_MAC, "10.10.200.10"), (Q, 200))
            if wanted(tags, data):
                return tags, data
        raise AssertionError("it did not come")

    def nothing(self, wanted):
        """Asserts that no such frame comes."""
        with pytest.raises(AssertionError):
            self.receive(wanted, 0.3)


@pytest.fixture(scope="module")
def trunk():
    """A director whose port has two VLANs, and the far end of its cable."""
    with Wire() as lab:
        far = Trunk(lab.peer, "p0")
        with Director(lab.director, config_text(lab.device, addresses=(), gateways=(), more=MORE)) as director:
            far.director, far.host = director, lab.director
            director.api.post("services", {
                "protocol": "tcp", "address": VIP, "port": 80, "real_servers": [{"address": SERVER, "mac": SERVER_MAC}]})
            yield far
        far.socket.close()


def is_to_server(_, frame):
    return frame[:6] == frames.mac(SERVER_MAC) and frame[12:14] == b"\x08\0"


@pytest.mark.parametrize("came", [(), ((Q, 200),), ((AD, 100), (Q, 300))], ids=["untagged", "200", "100.300"])
def test_request_leaves_with_the_tag_of_the_real_servers_vlan(trunk, came):
    request = tcp(CLIENT, VIP, sport=10000 + len(came))
    trunk.send(request, *came)
    tags, frame = trunk.receive(is_to_server)
    assert tags == [(Q, 200)]
    assert frame[6:] == frames.mac(DIRECTOR_MAC) + request[12:]


@pytest.mark.parametrize("came", [(), ((Q, 200),), ((AD, 100), (Q, 300))], ids=["untagged", "200", "100.300"])
def test_answer_leaves_with_the_tags_of_the_question(trunk, came):
    for question in (arp_request("10.10.24.1", VIP), echo_request("10.10.24.1", VIP)):
        trunk.send(question, *came)
        tags, _ = trunk.receive(lambda tags, frame: frame[:6] == frames.mac(PEER_MAC) and frame[12:14] == question[12:14])
        # The driver and the kernel between write 0x8100 for what they took off and put on again.
        assert [number for _, number in tags] == [number for _, number in came]


def test_tag_that_the_port_has_no_vlan_for_is_dropped(trunk):
    with trunk.director.counting(1) as counted:
        trunk.send(tcp(CLIENT, VIP, sport=20000), (Q, 201))
    assert counted.moved.get("unknown_vlan") == 1
    trunk.nothing(is_to_server)


def test_dip_of_a_vlan_answers_on_that_vlan_only(trunk):
    question = arp_request("10.10.200.1", "10.10.200.10")
    trunk.send(question, (Q, 200))
    tags, frame = trunk.receive(lambda tags, frame: frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2")
    assert (tags, frame[22:28]) == ([(Q, 200)], frames.mac(DIRECTOR_MAC))
    trunk.send(question)
    trunk.nothing(lambda tags, frame: frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2")


def test_kernel_beside_us_has_an_interface_for_each_vlan(trunk):
    assert "10.10.200.10/24" in trunk.host.run("ip -o address show dev lan.200").stdout
    assert "10.10.30.10/24" in trunk.host.run("ip -o address show dev guests").stdout
    # A real server whose MAC nobody gave is asked for on its VLAN, and a connection that no service claims is reset by the kernel.
    trunk.director.api.post("services", {"protocol": "udp", "address": VIP, "port": 53, "real_servers": [{"address": SERVER}]})
    until = time.monotonic() + 5
    while trunk.director.api.get("services/udp:10.10.24.88:53")["real_servers"][0]["state"] != "ready":
        assert time.monotonic() < until
        trunk.nothing(lambda *_: False)
    trunk.send(udp(CLIENT, VIP), (AD, 100), (Q, 300))
    assert trunk.receive(is_to_server)[0] == [(Q, 200)]
    trunk.send(arp_reply("10.10.30.1", PEER_MAC, "10.10.30.10"), (AD, 100), (Q, 300))
    trunk.host.run(f"ip neighbour replace 10.10.30.1 lladdr {PEER_MAC} dev guests")
    trunk.send(tcp("10.10.30.1", "10.10.30.10", dport=81), (AD, 100), (Q, 300))
    tags, reset = trunk.receive(lambda tags, frame: frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[47] & 4)
    assert [number for _, number in tags] == [100, 300] and reset[26:30] == socket.inet_aton("10.10.30.10")


def test_vlans_are_listed_behind_the_ports(trunk):
    ports = trunk.director.api.get("ports")
    assert [(port["name"], port.get("vlan")) for port in ports] == [("lan", None), ("lan.200", "200"), ("guests", "100.300")]
    assert ports[1]["verdicts"]["forwarded"] >= 1
    assert "VLAN 100.300 of net_af_packet0" in trunk.host.run("baton get ports").stdout
