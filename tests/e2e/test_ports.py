"""Ports: two arms, large packets, links that come and go, and what a port says of its device."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest
from networks import configure, counted

from lab import VIP, VIP6, Capture, Classic, Director, Lab, config_text, count_servers, frames, ready_binary
from lab.api import verdicts
from lab.frames import arp_request, tcp, udp
from lab.load import ask_udp

CLIENT, RIP = "198.51.100.1", "10.10.77.21"
KEY = f"tcp:{VIP}:80"
SERVER_MAC, INSIDE_MAC = "02:00:00:00:02:15", "02:00:00:00:d1:00"
RING = ",framesz=16384,blocksz=16384"


class TwoArms(Lab):
    """A director with a cable to the clients' side, d0 to p0, and one to the real servers' side, d1 to p1; the far ends are this program."""

    def __init__(self, mtu=1500):
        super().__init__()
        self.mtu = mtu

    def build(self):
        self.director, self.peer = self.host("director"), self.host("peer")
        self.peer.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        for number, mac in enumerate(("02:00:00:00:d0:00", INSIDE_MAC)):
            self.link(self.director, f"d{number}", self.peer, f"p{number}", mac=mac, other_mac=f"02:00:00:00:00:0{number + 1}")
            self.director.ip(f"link set d{number} mtu {self.mtu}")
            self.peer.ip(f"link set p{number} mtu {self.mtu}")
            self.peer.sysctl(f"net.ipv4.conf.p{number}.arp_ignore", 8)

    def config(self, ring=""):
        mtu = f"mtu = {self.mtu}\n" if self.mtu != 1500 else ""
        inside = f'[[port]]\nname = "inside"\ndevice = "net_af_packet1,iface=d1{ring}"\naddresses = ["10.10.77.10/24"]\n{mtu}\n'
        return config_text(f"net_af_packet0,iface=d0{ring}", gateways=(), more=inside).replace("[workers]", f"{mtu}[workers]", 1)


def service():
    return {"protocol": "tcp", "address": VIP, "port": 80, "real_servers": [{"address": RIP, "mac": SERVER_MAC}]}


def wait_for(what, wanted, seconds=5.0):
    """Asks until the answer is as wanted."""
    until = time.monotonic() + seconds
    while not wanted(answer := what()):
        assert time.monotonic() < until, answer
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="module")
def arms():
    with TwoArms() as lab, Director(lab.director, lab.config()) as director, Capture(lab.peer, "p0") as clients, \
            Capture(lab.peer, "p1") as servers:
        director.api.post("services", service())
        lab.running, lab.clients, lab.servers = director, clients, servers
        yield lab


def test_request_of_one_arm_leaves_by_the_other(arms):
    request = tcp(CLIENT, VIP, sport=11000)
    with arms.running.counting(1) as counted:
        arms.clients.send(request)
        frame = arms.servers.wait(lambda frame: frame.ports == (11000, 80))[-1]
    assert frame.bytes == frames.mac(SERVER_MAC) + frames.mac(INSIDE_MAC) + request[12:]
    # The VIP is being announced meanwhile.
    assert (counted.moved["received"], counted.moved["forwarded"]) == (1, 1)


def test_each_arm_answers_for_its_own_address_and_both_for_the_vip(arms):
    for cable, ours in ((arms.clients, "10.10.24.10"), (arms.servers, "10.10.77.10"), (arms.clients, VIP), (arms.servers, VIP)):
        cable.frames()
        cable.send(arp_request(ours.rpartition(".")[0] + ".1", ours))
        cable.wait(lambda frame: frame.ether_type == 0x0806 and frame.bytes[20:22] == b"\0\2" and not frame.outgoing)
    arms.servers.frames()
    arms.servers.send(arp_request("10.10.24.1", "10.10.24.10"))
    time.sleep(0.2)
    assert not [frame for frame in arms.servers.frames() if frame.bytes[20:22] == b"\0\2" and frame.ether_type == 0x0806]


def test_nobody_behind_a_port_without_a_link_gets_connections(arms):
    def server():
        return arms.running.api.service(KEY)["real_servers"][0]

    latest = arms.running.api.get("events")["latest"]
    arms.peer.ip("link set p1 down")
    down = wait_for(server, lambda server: server["state"] == "no-mac")
    assert down["reason"] == "port inside has no link"
    ports = {port["name"]: port["link_up"] for port in arms.running.api.get("ports")}
    assert ports == {"lan": True, "inside": False}
    assert arms.running.api.raw("GET", "/readyz")[0] == 503
    with arms.running.counting(1) as counted:
        arms.clients.send(tcp(CLIENT, VIP, sport=11001))
    assert "forwarded" not in counted.moved, counted.moved
    arms.peer.ip("link set p1 up")
    wait_for(server, lambda server: server["state"] == "ready")
    # A packet socket keeps that its interface was down until somebody has heard it.
    arms.servers.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    arms.clients.send(tcp(CLIENT, VIP, sport=11002))
    arms.servers.wait(lambda frame: frame.ports == (11002, 80))
    told = arms.running.api.get(f"events?since={latest}")["events"]
    assert [event["kind"] for event in told if event["kind"].startswith("link-")] == ["link-down", "link-up"]


def test_director_that_starts_before_its_link_is_there_is_ready_with_its_real_servers():
    begin = f'[[service]]\nprotocol = "tcp"\naddress = "{VIP}"\nport = 80\n[[service.real_server]]\naddress = "{RIP}"\n'
    with TwoArms() as lab:
        lab.peer.sysctl("net.ipv4.conf.p1.arp_ignore", 0)
        lab.peer.ip(f"address add {RIP}/24 dev p1")
        lab.peer.ip("link set p1 down")
        director = Director(lab.director, lab.config() + begin)

        def lacks():
            try:
                return director.api.raw("GET", "/readyz")[1]
            except OSError:
                return "nobody listens yet"

        def plug_in():
            wait_for(lacks, lambda text: "port inside has no link" in text, 20)
            lab.peer.ip("link set p1 up")

        plug = threading.Thread(target=plug_in)
        plug.start()
        with director:
            plug.join()
            [server] = director.api.service(KEY)["real_servers"]
            assert server["state"] == "ready", server


def test_ports_say_what_their_devices_let_in_and_lack(arms):
    [lan, inside] = arms.running.api.get("ports")
    assert (lan["promiscuous"], lan["spread"], lan["queues"]) == (False, "one-worker", 1)
    assert any("IPv4 header checksums: workers check them" in lack for lack in lan["lacks"])
    said = arms.running.run("baton get ports")
    assert "port lan: not promiscuous" in said and "port inside: no filter of multicast groups" in said
    assert "PROMISC" not in arms.director.ip("link show d0").split(">")[0]


def test_packets_of_9000_bytes_pass_whole():
    with TwoArms(mtu=9000) as lab, Director(lab.director, lab.config(RING)) as director, Capture(lab.peer, "p0") as clients, \
            Capture(lab.peer, "p1") as servers:
        director.api.post("services", {**service(), "protocol": "udp", "port": 53})
        assert [port["mtu"] for port in director.api.get("ports")] == [9000, 9000]
        assert "mtu 9000" in director.host.ip("link show lan")
        for length in (1473, 8000, 8972):
            request = udp(CLIENT, VIP, sport=12000, data=bytes(index % 251 for index in range(length)))
            clients.send(request)
            frame = servers.wait(lambda frame: frame.ports == (12000, 53))[-1]
            assert frame.bytes[12:] == request[12:]


@pytest.mark.parametrize("ring, interface, said", [
    ("", 9000, "port 'lan': mtu = 9000 needs frames of 9102 bytes in the ring"),
    (RING, 1500, "port 'lan': mtu = 9000, and the interface d0 has 1500"),
])
def test_mtu_that_the_device_cannot_have_is_refused_by_name(lonely, ring, interface, said):
    lonely.director.ip(f"link set d0 mtu {interface}")
    text = config_text(lonely.device + ring).replace("[workers]", "mtu = 9000\n[workers]", 1)
    status, output = Director(lonely.director, text).fails_to_start()
    assert status == 1 and said in output, output


def test_both_workers_serve_a_device_with_one_queue():
    with Classic() as lab:
        ready_binary(lab)
        lab.prepare()
        lab.serve()
        with Director(lab.director, config_text(lab.device + ",qpairs=1", workers=2)) as director:
            [port] = director.api.get("ports")
            assert (port["spread"], port["queues"]) == ("software", 1)
            assert "qpairs=2" in " ".join(port["lacks"])
            network = SimpleNamespace(director=director, servers=lab.servers)
            for vip in (VIP, VIP6):
                configure(network, vip)
                configure(network, vip, flag="-u", port=53)
                shares = counted(network, count_servers(lab.client, vip, 30))
                assert sum(shares) == 30 and max(shares) - min(shares) <= 2, "round robin of two workers"
                answered = {source: ask_udp(lab.client, vip, source_port=source) for source in range(20000, 20060)}
                assert {source: ask_udp(lab.client, vip, source_port=source) for source in answered} == answered
            workers = director.api.get("workers")
            assert min(worker["connections"] for worker in workers) >= 40, workers
            counters = director.api.settled_counters()
            assert counters["handed_over"] == counters["taken_over"] > 0
            assert counters["sent_by_others"] == counters["sent_for_others"] > 0
            assert sum(verdicts(counters).values()) == counters["received"]
            assert "port lan: not promiscuous, shared out among all workers by software, from 1 queue" in director.run("baton get ports")
            _, metrics = director.api.raw("GET", "/metrics")
            assert 'baton_ring_capacity_frames{kind="relay",name="lan-1"} 1024' in metrics.splitlines()
