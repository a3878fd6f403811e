"""dpdk-testpmd as generator and sink on both sides of the director (memif), and the kernel's own clients through a TAP: nothing is lost at half of
the rate that was measured, and every frame is accounted for."""

import contextlib
import selectors
import signal
import socket
import time

import pytest

from lab import VIP, Classic, Director, Lab, config_text, ready_binary
from lab.director import cores
from lab import testpmd

# Frames that a memif ring holds, as a power of two: the most that DPDK allows, so that whoever must wait for a core meanwhile loses none.
RING = 14
SECONDS_MEASURED = 1.0
GENERATOR, SINK, WAN = "02:00:00:00:00:0b", "02:00:00:00:00:15", "02:00:00:00:00:1a"
REAL_SERVER = '[[service.real_server]]\naddress = "10.10.25.21"\n'
# By testpmd's mode: the MAC that it sends to, the service, its flows, its options. txonly writes its numbers into the third byte of sources like the
# destination, over what is there; flowgen sends from 10.254.0.0 port 1000 to 10.253.0.0 and up, port 1001.
TRAFFIC = {
    "txonly": (
        "02:00:00:00:00:0a", '[[service]]\nprotocol = "udp"\naddress = "198.18.0.88"\nport = 9\nscheduler = "rr"\n', 256,
        ["--txonly-multi-flow", "--tx-ip=198.18.0.1,198.18.0.88", "--tx-udp=9,9", "--eth-peer=0,02:00:00:00:00:0a"]),
    "flowgen": (
        "00:01:02:03:04:01",
        '[[mark]]\nmark = 7\ndestination = "10.253.0.0/22"\nprotocol = "udp"\nports = [1001]\n[[service]]\nmark = 7\nscheduler = "rr"\n', 1024,
        ["--flowgen-flows=1024"]),
}


def memif(lab, name, role, mac):
    return f"net_memif0,role={role},id=0,socket={lab.folder}/{name}.sock,socket-abstract=no,rsize={RING},mac={mac}"


def configuration(lab, ports, service):
    """A baton.toml for ports of (name, its MAC, its network, the last number of a neighbour's address, the neighbour's MAC)."""
    control, used = cores(1)
    text = f"[workers]\ncores = {list(used)}\n[control]\ncore = {control}\n[eal]\nno_huge = true\nmemory = \"512M\"\n[limits]\nconnections = 65536\n"
    for at, (name, mac, network, neighbour, their_mac) in enumerate(ports):
        device = memif(lab, name, "client", mac).replace("memif0", f"memif{at}")
        text += (f'[[port]]\nname = "{name}"\ndevice = "{device}"\naddresses = ["{network}.10/24"]\n'
                 f'[[port.neighbour]]\naddress = "{network}.{neighbour}"\nmac = "{their_mac}"\n')
    return text + service


@contextlib.contextmanager
def program(lab, name, mac, *options):
    eal = ["--no-huge", "-m", "256", "--no-shconf", "--file-prefix", f"{lab.name}-{name}"]
    with testpmd.Testpmd(lab.director, memif(lab, name, "server", mac), eal, [*options, "--total-num-mbufs=49152"]) as running:
        yield running


@pytest.fixture
def lab():
    with Lab() as lab:
        lab.director = lab.host("director")
        ready_binary(lab)
        yield lab


def at_half_rate(director, generator, seconds):
    """Sends for `seconds` at half of the rate at which the director forwards all that it can get; what it forwarded, and what else it counted."""
    def forwarded():
        return director.api.counters().get("forwarded", 0)

    generator.start()
    first, began = forwarded(), time.monotonic()
    time.sleep(SECONDS_MEASURED)
    rate = (forwarded() - first) / (time.monotonic() - began)
    assert rate > 0, director.api.counters()
    generator.process.send_signal(signal.SIGSTOP)
    before, began = director.api.settled_counters(), time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        behind = forwarded() - before["forwarded"] < rate / 2 * (now - began)
        if behind:
            generator.process.send_signal(signal.SIGCONT)
        time.sleep(0.002)
        if behind:
            generator.process.send_signal(signal.SIGSTOP)
    after = director.api.settled_counters()
    generator.process.send_signal(signal.SIGCONT)
    moved = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    print(f"{rate:,.0f} frames a second at most; at half of that {moved}")
    return moved


@pytest.mark.parametrize("traffic", ["txonly", "flowgen"])
def test_flows_of_testpmd_reach_a_sink_without_loss(lab, pytestconfig, traffic):
    mac, service, flows, options = TRAFFIC[traffic]
    text = configuration(lab, [("lan", mac, "10.10.24", 1, GENERATOR), ("wan", WAN, "10.10.25", 21, SINK)], service + REAL_SERVER)
    # The far ends are there first: the director is ready once its ports have a link.
    with program(lab, "wan", SINK, "--forward-mode=rxonly") as sink, program(lab, "lan", GENERATOR, f"--forward-mode={traffic}", *options) as generator:
        with Director(lab.director, text) as director:
            sink.start()
            moved = at_half_rate(director, generator, pytestconfig.option.seconds)
            # What the kernel beside the director asks meanwhile is sent, too.
            assert set(moved) <= {"received", "sent", "forwarded", "injected"} and moved["received"] == moved["forwarded"] > 0, moved
            assert moved["sent"] == moved["forwarded"] + moved.get("injected", 0), moved
            assert sum(worker["connections"] for worker in director.api.get("workers")) == flows
            generator.stop()
            total = director.api.settled_counters()
            assert generator.packets()[1] == total["received"], total
            assert sink.packets()[0] == director.api.get("ports")[1]["tx_packets"] >= total["forwarded"], total


def test_kernel_clients_through_a_tap_lose_nothing_at_half_of_their_rate(pytestconfig):
    with Classic(attach="tap") as lab:
        ready_binary(lab)
        lab.prepare()
        with Director(lab.director, config_text(lab.device), started=lab.join_tap) as director:
            director.ipvsadm(f"-A -u {VIP}:7 -s rr", *(f"-a -u {VIP}:7 -r {server.address} -g" for server in lab.servers))
            with contextlib.ExitStack() as ends:
                sinks = [ends.enter_context(sink(server)) for server in lab.servers]
                clients = [ends.enter_context(client(lab.client)) for _ in range(30)]
                rate = send(clients, SECONDS_MEASURED, None) and received(sinks) / SECONDS_MEASURED
                assert rate > 0, director.api.counters()
                drain(sinks, 0)
                before = director.api.settled_counters()
                sent = send(clients, pytestconfig.option.seconds, rate / 2)
                got = drain(sinks, sent)
                after = director.api.settled_counters()
                print(f"{rate:,.0f} datagrams a second at most; at half of that {sent} sent, {got} received")
                assert got == sent and after["forwarded"] - before["forwarded"] == sent
                assert {name for name in after if name.startswith(("tx_", "hand_")) and after[name] != before.get(name, 0)} == set()


@contextlib.contextmanager
def sink(server):
    with server.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        # Beyond the machine's limit, as root may.
        listener.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
        listener.bind(("", 7))
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def client(host):
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("203.0.113.88", 7))
        yield sender


def send(clients, seconds, rate):
    """Sends from all in turn, at this rate or as fast as it goes; how many."""
    sent, began = 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        if rate is not None and sent >= rate * elapsed:
            time.sleep(0.001)
            continue
        clients[sent % len(clients)].send(b"frame")
        sent += 1
    return sent


def received(sinks):
    """How many wait at the sinks by now; takes them."""
    count = 0
    for listener in sinks:
        with contextlib.suppress(BlockingIOError):
            while listener.recv(64):
                count += 1
    return count


def drain(sinks, wanted):
    """Takes what comes until it is `wanted`, or nothing has come for a second; how many came."""
    count, quiet_since = 0, time.monotonic()
    with selectors.DefaultSelector() as selector:
        for listener in sinks:
            selector.register(listener, selectors.EVENT_READ)
        while time.monotonic() - quiet_since < 1.0 and (not wanted or count < wanted):
            if selector.select(0.1):
                count += received(sinks)
                quiet_since = time.monotonic()
    return count
