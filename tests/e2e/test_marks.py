"""Services by mark as users meet them: several ports, protocols, VIPs or a whole network as one service."""

from networks import counted

from lab import VIP, VIP6, count_servers
from lab.load import ask_udp

NETWORK, INSIDE = "192.0.2.0/24", "192.0.2.7"


def service(network, mark, *more, six=False):
    """A service by mark with every real server."""
    name = f"-f {mark}" + (" -6" if six else "")
    network.director.ipvsadm(" ".join((f"-A {name} -s rr", *more)))
    for server in network.servers:
        rip = f"[{server.address6}]:0" if six else server.address
        network.director.ipvsadm(f"-a {name} -r {rip} -g")


def test_web_and_udp_of_a_vip_are_one_service_and_a_client_stays_with_its_server(classic):
    classic.director.run(f"baton marks add 7 --destination {VIP} --protocol tcp --ports 80")
    classic.director.run(f"baton marks add 7 --destination {VIP} --protocol udp --ports 53")
    service(classic, 7, "-p 300")
    [name] = count_servers(classic.client, VIP, 6)
    assert {ask_udp(classic.client, VIP) for _ in range(3)} == {name}
    listing = classic.director.ipvsadm("-Lnc")
    assert "IP  04:" in listing and " 0.0.0.7:0 " in listing


def test_vip_of_a_mark_rule_is_answered_for_both_families_without_any_other_service(classics):
    for vip in (VIP, VIP6):
        classics.director.run(f"baton marks add 3 --destination {vip}")
    service(classics, 3)
    service(classics, 3, six=True)
    for vip in (VIP, VIP6):
        assert sum(counted(classics, count_servers(classics.client, vip, 9))) == 9
    assert classics.director.ipvsadm("-Ln").count("FWM  3") == 2
    saved = classics.director.run("ipvsadm-save -n")
    classics.director.run(f"ipvsadm-restore <<'X'\n{saved}X")
    assert classics.director.run("ipvsadm-save -n") == saved


def test_whole_network_that_is_routed_to_the_director_is_one_service(classic):
    classic.lab.router.ip(f"route add {NETWORK} via 10.10.24.10")
    classic.client.ip(f"route add {NETWORK} via 203.0.113.1")
    classic.lab.prepare(INSIDE)
    try:
        classic.director.run(f"baton marks add 9 --destination {NETWORK}")
        service(classic, 9)
        assert counted(classic, count_servers(classic.client, INSIDE, 9)) == [3, 3, 3]
    finally:
        classic.lab.router.ip(f"route del {NETWORK}")
        classic.client.ip(f"route del {NETWORK}")


def test_mark_rules_outlive_a_restart_and_are_shown(classic):
    classic.director.run("baton marks add 7 --destination 10.10.24.90 --source 203.0.113.0/24 --protocol tcp --ports 80,8000-8999")
    shown = classic.director.run("baton get marks")
    assert shown.splitlines()[1].split() == ["7", "10.10.24.90", "203.0.113.0/24", "tcp", "80,8000-8999"]
    classic.director.stop()
    classic.director.start()
    assert classic.director.run("baton get marks") == shown
    refused = classic.director.host.run("baton marks add 7 --destination 10.10.24.10", check=False)
    assert refused.returncode == 1 and "director's own address" in refused.stderr
