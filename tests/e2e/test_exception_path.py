"""The kernel beside the director: what belongs to no virtual service is the kernel's, and nobody answers twice."""

import re
import socket

import pytest
from networks import configure

from lab import DIP, DIP6, PUBLIC, VIP, VIP6, fetch
from lab.load import connect

ADMIN_PORT = 2222


@pytest.fixture
def greeter(classic):
    """Something like sshd on the director: a listener that sends a banner."""
    listeners = []
    for family, address in ((socket.AF_INET, DIP), (socket.AF_INET6, DIP6)):
        listener = classic.director.host.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, ADMIN_PORT))
        listener.listen()
        listener.settimeout(5)
        listeners.append(listener)
    yield dict(zip((DIP, DIP6), listeners))
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("address", [DIP, DIP6])
def test_tcp_to_the_dip_reaches_the_directors_own_kernel(classic, greeter, address):
    with connect(classic.client, address, ADMIN_PORT) as connection:
        accepted, peer = greeter[address].accept()
        with accepted:
            accepted.sendall(b"SSH-2.0-lab\r\n" + b"z" * 100_000)
            accepted.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"SSH-2.0-lab") and len(received) == 100_013
    assert peer[0] == ("203.0.113.10" if address == DIP else "fd00:99::10")


@pytest.mark.parametrize("address", [DIP, DIP6, VIP, VIP6])
def test_ping_is_answered_exactly_once(classic, address):
    for vip in (VIP, VIP6):
        configure(classic, vip)
    said = classic.client.run(["ping", "-n", "-i", "0.05", "-c", "10", "-W", "2", address]).stdout
    assert re.search(r"10 packets transmitted, 10 received, 0% packet loss", said), said
    assert "DUP!" not in said and "duplicates" not in said


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_tcp_to_a_vip_without_such_a_service_is_refused_by_the_kernel(classic, vip):
    configure(classic, vip)
    with pytest.raises(ConnectionRefusedError):
        connect(classic.client, vip, 81)


def test_service_without_real_servers_is_answered_with_port_unreachable(classic):
    classic.director.ipvsadm(f"-A -t {VIP}:80 -s rr")
    with pytest.raises(ConnectionRefusedError):
        connect(classic.client, VIP)
    assert classic.director.api.counters().get("no_real_server", 0) >= 1


def test_director_itself_reaches_others_through_its_port(classic):
    said = classic.director.host.run(["ping", "-n", "-c", "2", "-W", "2", "203.0.113.10"]).stdout
    assert "2 received" in said
    assert fetch(classic.director.host, classic.servers[0].address) == ("rs1", b"rs1\n")


def test_kernel_of_the_cable_stays_silent(classic):
    """af_packet leaves the kernel's own stack on the cable; only the TAP may speak for the director."""
    configure(classic, VIP)
    fetch(classic.client, PUBLIC)
    addresses = classic.director.host.run(["ip", "-o", "address", "show", "dev", "d0"]).stdout
    assert "inet " not in addresses and "inet6" not in addresses
    shown = classic.director.host.run(["ip", "-o", "address", "show", "dev", "lan"]).stdout
    assert f"{DIP}/24" in shown and f"{DIP6}/64" in shown and f"{VIP}/32" in shown


def test_neighbours_are_listed_with_their_macs(classic):
    configure(classic, VIP)
    known = {entry["address"]: entry for entry in classic.director.api.get("neighbours")}
    for server in classic.servers:
        assert known[server.address]["mac"] == server.mac and known[server.address]["port"] == "lan"
    assert classic.servers[0].mac in classic.director.run("baton get neighbours")
