"""dpdk-testpmd as generator and sink of the director (memif), and the kernel's own clients through a TAP: nothing is lost at half of the rate that
was measured, and every frame is accounted for. The worker has a core for itself; all others share what is left."""

import contextlib
import os
import signal
import socket
import time

import pytest

from lab import VIP, Classic, Director, Lab, config_text, ready_binary
from lab import testpmd
from lab.director import cores

# Frames that a memif ring holds, as a power of two: the most that DPDK allows, so that whoever must wait for a core meanwhile loses none.
RING = 14
SECONDS_MEASURED = 1.0
# By testpmd's mode: the MAC that it sends to, the service, its flows, its options. txonly writes its numbers into the third byte of sources like the
# destination, over what is there; flowgen sends from 10.254.0.0 port 1000 to 10.253.0.0 and up, port 1001.
TRAFFIC = {
    "txonly": (
        "02:00:00:00:00:0a", '[[service]]\nprotocol = "udp"\naddress = "198.18.0.88"\nport = 9\nscheduler = "rr"\n', 256,
        ["--txonly-multi-flow", "--tx-ip=198.18.0.1,198.18.0.88", "--tx-udp=9,9"]),
    "flowgen": (
        "00:01:02:03:04:01",
        '[[mark]]\nmark = 7\ndestination = "10.253.0.0/22"\nprotocol = "udp"\nports = [1001]\n[[service]]\nmark = 7\nscheduler = "rr"\n', 1024,
        ["--flowgen-flows=1024"]),
}
TESTPMD = "02:00:00:00:00:0b"


def memif(lab, role, mac):
    return f"net_memif0,role={role},id=0,socket={lab.folder}/lan.sock,socket-abstract=no,rsize={RING},mac={mac}"


def configuration(lab, mac, service):
    """A baton.toml for one port with this MAC; testpmd, at its other end, is the service's only real server."""
    neighbour = f'[[port.neighbour]]\naddress = "10.10.24.21"\nmac = "{TESTPMD}"\n'
    real_server = '[[service.real_server]]\naddress = "10.10.24.21"\n'
    return config_text(memif(lab, "client", mac), addresses=("10.10.24.10/24",), gateways=(), more=neighbour + service + real_server)


def generator(lab, *options):
    eal = ["--no-huge", "-m", "256", "--no-shconf", "--file-prefix", lab.name]
    return testpmd.Testpmd(lab.director, memif(lab, "server", TESTPMD), eal, [*options, "--no-flush-rx", "--total-num-mbufs=49152"], core=cores(1)[0])


@contextlib.contextmanager
def beside_the_worker():
    """Keeps this process away from the worker's core, and lets it run as soon as it is due."""
    allowed, (_, [worker]) = os.sched_getaffinity(0), cores(1)
    os.sched_setaffinity(0, allowed - {worker} or allowed)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, allowed)


@pytest.fixture
def lab():
    with Lab() as lab:
        lab.director = lab.host("director")
        ready_binary(lab)
        yield lab


def at_half_rate(director, generator, seconds):
    """Goes on for `seconds` at half of the rate at which the director forwards all that it can get; what it forwarded, and what else it counted."""
    def forwarded():
        return director.api.counters().get("forwarded", 0)

    with beside_the_worker():
        first, began = forwarded(), time.monotonic()
        time.sleep(SECONDS_MEASURED)
        rate = (forwarded() - first) / (time.monotonic() - began)
        assert rate > 0, director.api.counters()
        generator.process.send_signal(signal.SIGSTOP)
        before, began = director.api.settled_counters(), time.monotonic()
        while (done := forwarded() - before["forwarded"]) < rate / 2 * seconds:
            elapsed = time.monotonic() - began
            assert elapsed < 10 * seconds + 10, director.api.counters()
            behind = done < rate / 2 * elapsed
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


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_flows_of_testpmd_come_back_without_loss(lab, pytestconfig, traffic):
    mac, service, flows, options = TRAFFIC[traffic]
    # The far end is there first: the director is ready once its port has a link.
    with generator(lab, f"--forward-mode={traffic}", f"--eth-peer=0,{mac}", *options) as pmd, Director(lab.director, configuration(lab, mac, service)) as director:
        pmd.start()
        waits_until(lambda: sum(worker["connections"] for worker in director.api.get("workers")) == flows)
        pmd.stop()
        director.api.settled_counters()
        # From here on the frames that are under way go round, as many as one ring holds: whoever must wait for a core keeps the others waiting.
        pmd.say("set fwd mac", "testpmd> ")
        pmd.start()
        moved = at_half_rate(director, pmd, pytestconfig.option.seconds)
        # What the kernel beside the director asks meanwhile is sent, too, and comes back as well.
        came_back = moved["received"] - moved["forwarded"]
        assert set(moved) <= {"received", "sent", "forwarded", "injected", "bad_neighbour_message"} and came_back == moved.get("bad_neighbour_message", 0), moved
        assert moved["sent"] == moved["forwarded"] + moved.get("injected", 0) and came_back <= moved.get("injected", 0), moved
        pmd.stop()
        total = director.api.settled_counters()
        assert pmd.packets()[1] == total["received"], total
        pmd.say("set fwd rxonly", "testpmd> ")
        pmd.start()
        waits_until(lambda: pmd.packets()[0] == total["sent"])


def waits_until(what):
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_kernel_clients_through_a_tap_lose_nothing_at_half_of_their_rate(pytestconfig):
    with Classic(attach="tap") as lab:
        ready_binary(lab)
        lab.prepare()
        with Director(lab.director, config_text(lab.device), started=lab.join_tap) as director, contextlib.ExitStack() as ends:
            director.ipvsadm(f"-A -u {VIP}:7 -s rr", *(f"-a -u {VIP}:7 -r {server.address} -g" for server in lab.servers))
            ends.enter_context(beside_the_worker())
            sinks = [ends.enter_context(sink(server)) for server in lab.servers]
            clients = [ends.enter_context(client(lab.client)) for _ in range(30)]
            _, got = exchange(clients, sinks, SECONDS_MEASURED, None)
            rate = got / SECONDS_MEASURED
            assert rate > 0, director.api.counters()
            before = director.api.settled_counters()
            sent, got = exchange(clients, sinks, pytestconfig.option.seconds, rate / 2)
            after = director.api.settled_counters()
            print(f"{rate:,.0f} datagrams a second at most; at half of that {sent} sent, {got} received")
            assert got == sent > 0 and after["forwarded"] - before["forwarded"] == sent
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


def exchange(clients, sinks, seconds, rate):
    """Sends from all in turn, at this rate or as fast as it goes, and takes what comes until nothing has come for a second; (sent, received)."""
    sent, got, began = 0, 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(64 if rate is None else min(64, int(rate * elapsed) - sent)):
            clients[sent % len(clients)].send(b"frame")
            sent += 1
        got += received(sinks)
        # The director's control plane and the kernel want this core, too.
        time.sleep(0.0002)
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 1.0:
        if came := received(sinks):
            got, quiet_since = got + came, time.monotonic()
        time.sleep(0.01)
    return sent, got


def received(sinks):
    """How many wait at the sinks by now; takes them."""
    count = 0
    for listener in sinks:
        with contextlib.suppress(BlockingIOError):
            while listener.recv(64):
                count += 1
    return count
