"""`baton realserver`, on a real server of its own: what it does, what it finds wrong, and how it goes back."""

import pytest

from lab import VIP, VIP6, Capture, Classic, frames, ready_binary

SETTINGS = {"arp_ignore": "1", "arp_announce": "2"}


@pytest.fixture(scope="module")
def lab_of_one():
    """One plain real server."""
    with Classic(servers=1) as lab:
        ready_binary(lab)
        yield lab


@pytest.fixture
def server(lab_of_one):
    """A real server on which nothing was applied."""
    host = lab_of_one.servers[0]
    yield host
    host.run(["baton", "realserver", "undo"], check=False)


def state(host):
    """Everything that apply may change."""
    settings = {(key, device): host.read_sysctl(f"net.ipv4.conf.{device}.{key}") for key in SETTINGS for device in ("all", "eth0", "lo")}
    return settings, sorted(host.ip("-o address show dev lo").split("\n"))


def addresses(host):
    """What lo carries."""
    return host.ip("-o address show dev lo")


def test_apply_puts_the_vip_on_lo_and_out_of_arp(server):
    server.run(["baton", "realserver", "apply", "--vip", VIP])
    assert f"{VIP}/32" in addresses(server)
    for key, value in SETTINGS.items():
        assert server.read_sysctl(f"net.ipv4.conf.all.{key}") == value
        assert server.read_sysctl(f"net.ipv4.conf.eth0.{key}") == value
    assert server.run(["baton", "realserver", "check", "--vip", VIP]).returncode == 0


def test_apply_takes_ipv6_and_several_vips(server):
    server.run(["baton", "realserver", "apply", "--vip", VIP, "--vip", VIP6])
    assert f"{VIP}/32" in addresses(server) and f"{VIP6}/128" in addresses(server)
    server.run(["baton", "realserver", "check", "--vip", VIP, "--vip", VIP6])


def test_apply_twice_changes_nothing_more_and_undo_puts_back_what_was(server):
    before = state(server)
    server.run(["baton", "realserver", "apply", "--vip", VIP])
    once = state(server)
    assert once != before
    server.run(["baton", "realserver", "apply", "--vip", VIP])
    assert state(server) == once
    server.run(["baton", "realserver", "undo"])
    assert state(server) == before


def test_check_names_every_wrong_line_and_what_mends_it(server):
    done = server.run(["baton", "realserver", "check", "--vip", VIP], check=False)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert VIP in said and "arp_ignore" in said and "arp_announce" in said
    assert "sysctl -w net.ipv4.conf.all.arp_ignore=1" in said or "baton realserver apply" in said


@pytest.mark.parametrize("key", list(SETTINGS))
def test_check_finds_a_setting_that_was_put_back(server, key):
    server.run(["baton", "realserver", "apply", "--vip", VIP])
    server.sysctl(f"net.ipv4.conf.all.{key}", 0)
    server.sysctl(f"net.ipv4.conf.eth0.{key}", 0)
    done = server.run(["baton", "realserver", "check", "--vip", VIP], check=False)
    assert done.returncode == 1 and key in done.stdout + done.stderr


def test_print_shows_commands_and_changes_nothing(server):
    before = state(server)
    said = server.run(["baton", "realserver", "apply", "--vip", VIP, "--print"]).stdout
    assert f"{VIP}/32" in said and "arp_ignore" in said and "arp_announce" in said and "/etc/sysctl.d/" in said
    assert state(server) == before


@pytest.mark.parametrize("vip", ["300.1.1.1", "10.10.24", "", "127.0.0.1", "224.0.0.1", "10.10.24.88/24"])
def test_bad_vip_is_refused_by_name(server, vip):
    before = state(server)
    done = server.run(["baton", "realserver", "apply", "--vip", vip], check=False)
    assert done.returncode != 0 and "vip" in (done.stdout + done.stderr).lower()
    assert state(server) == before


def test_prepared_real_server_does_not_answer_arp_for_the_vip(server, lab_of_one):
    server.run(["baton", "realserver", "apply", "--vip", VIP])
    with Capture(lab_of_one.switch, "rs1") as cable:
        cable.send(frames.arp_request("10.10.24.1", VIP, sender_mac="0a:01:01:01:01:01"))
        cable.send(frames.arp_request("10.10.24.1", server.address, sender_mac="0a:01:01:01:01:01"))
        seen = cable.wait(lambda frame: not frame.outgoing and frame.ether_type == 0x0806 and frame.bytes[28:32] == frames.packed(server.address))
    assert not [frame for frame in seen if not frame.outgoing and frame.bytes[28:32] == frames.packed(VIP)]
