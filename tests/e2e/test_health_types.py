"""Each type of health check against what it is for: ping, datagrams, name servers, gRPC, programs."""

import time
from types import SimpleNamespace

import pytest
from checked import becomes, certificate, key, service

from lab import VIP, VIP6


@pytest.fixture
def served(classic):
    """The classic network with one real server to look at; what a test started on it ends, and its VIP is put back."""
    started = []

    def start(host, words, **more):
        started.append(host.start(words, **more))
        return started[-1]

    yield SimpleNamespace(**vars(classic), victim=classic.servers[0], start=start)
    for process in started:
        process.terminate()
        process.wait()
    classic.lab.prepare()


def alone(served, health, vip=VIP, protocol="tcp", port=80):
    """A service with the one real server."""
    times = {} if "interval" in health else {"interval": "200ms", "timeout": "600ms"}
    address = served.victim.address6 if ":" in vip else served.victim.address
    service(served, {**health, **times}, vip, protocol, port, real_servers=[{"address": address}])
    return SimpleNamespace(becomes=lambda state, within=5: becomes(served, served.victim, state, within, vip, protocol, port))


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_ping_goes_the_clients_way_and_finds_a_lost_vip(served, vip):
    checked = alone(served, {"type": "ping"}, vip)
    # What is not for it any more it sends on, to a router that knows whose the VIP is.
    served.victim.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    assert checked.becomes("up")["check"] == f"ping to {vip} on the clients' path"
    served.victim.ip(f"address del {vip}/{128 if ':' in vip else 32} dev lo")
    try:
        assert "RIP answers, VIP does not" in checked.becomes("down")["reason"]
    finally:
        served.victim.run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    served.lab.prepare()
    checked.becomes("up")


def test_ping_to_the_rip_does_not_see_the_vip_but_a_lost_link(served):
    checked = alone(served, {"type": "ping", "via": "direct"})
    checked.becomes("up")
    served.victim.run("nft add table ip broken; nft 'add chain ip broken in { type filter hook input priority 0; }'; "
                      "nft add rule ip broken in icmp type echo-request drop")
    try:
        assert checked.becomes("down")["reason"] == "no answer"
    finally:
        served.victim.run("nft delete table ip broken")
    checked.becomes("up")


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_datagrams_are_answered_on_the_clients_way_or_their_port_is_closed(served, vip):
    checked = alone(served, {"type": "udp", "send": "well?", "body": "^rs1 well"}, vip, "udp", 53)
    checked.becomes("up")
    served.director.clear()
    assert "body that does not match" in alone(served, {"type": "udp", "body": "^rs2 "}, vip, "udp", 53).becomes("down")["reason"]
    served.director.clear()
    target = f"[{vip}]:54" if ":" in vip else f"{vip}:54"
    for wanted in (True, False):
        checked = alone(served, {"type": "udp", "answer": wanted}, vip, "udp", 54)
        assert checked.becomes("down")["reason"] == f"nobody listens on {target}, says an ICMP error"
        served.director.clear()


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_name_server_is_asked_on_the_clients_way(served, vip):
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=5353", "--no-resolv", "--no-hosts",
             "--local=/example.org/", "--address=/www.example.org/192.0.2.1"]
    served.start(served.victim, words)
    for health, reason in [
        ({"name": "www.example.org"}, None),
        ({"name": "www.example.org", "expect": "192.0.2.1"}, None),
        ({"name": "nobody.example.org", "rcode": "NXDOMAIN"}, None),
        ({"name": "nobody.example.org"}, "wrong status, NXDOMAIN"),
        ({"name": "www.example.org", "expect": "192.0.2.9"}, "does not match"),
    ]:
        checked = alone(served, {"type": "dns", **health}, vip, "udp", 5353)
        seen = checked.becomes("down" if reason else "up", 10)
        assert (reason or "") in (seen.get("reason") or ""), (health, seen)
        served.director.clear()


GRPC = """
import grpc, sys
from concurrent import futures
state = {"": 1, "shop": 1, "till": 2}
def check(asked, context):
    name = asked[2:].decode()
    if name not in state:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, state[name]])
handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)})
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port("[::]:50051")
if len(sys.argv) > 1:
    key, certificate = (open(sys.argv[1] + name, "rb").read() for name in ("/key.pem", "/ca.pem"))
    server.add_secure_port("[::]:50052", grpc.ssl_server_credentials([(key, certificate)]))
server.start()
server.wait_for_termination()
"""


def test_grpc_health_service_is_asked_with_and_without_tls(served):
    certificate(served.victim)
    served.start(served.victim, ["/usr/bin/python3", "-I", "-c", GRPC, served.victim.folder])
    authority = {"tls": True, "sni": "shop.example", "ca": str(served.victim.folder / "ca.pem"), "port": 50052}
    for health, reason in [
        ({}, None),
        ({"grpc_service": "shop"}, None),
        ({"grpc_service": "till"}, "answers with the wrong status, NOT_SERVING"),
        ({"grpc_service": "nosuch"}, "NOT_FOUND"),
        (authority, None),
        ({"tls": True, "verify": False, "port": 50052}, None),
        ({**authority, "sni": "wrong.example"}, "TLS: invalid peer certificate"),
        ({"port": 80}, "something else than HTTP/2"),
    ]:
        checked = alone(served, {"type": "grpc", "interval": "300ms", "timeout": "2s", **health}, port=50051)
        seen = checked.becomes("down" if reason else "up", 10)
        assert (reason or "") in (seen.get("reason") or ""), (health, seen)
        served.director.clear()


def test_program_runs_as_another_user_without_privileges_and_without_our_environment(served):
    tell = "import os; print(os.getuid(), os.getgroups(), [line.split()[1] for line in open('/proc/self/status') if line[:6] in ('CapEff', 'CapPrm', 'CapAmb', 'NoNewP')], sorted(os.environ)); exit(3)"
    checked = alone(served, {"type": "exec", "command": ["/usr/bin/python3", "-I", "-c", tell], "timeout": "5s", "interval": "1s"})
    reason = checked.becomes("down", 10)["reason"]
    none = "'0000000000000000'"
    assert f"ended with exit status: 3: 65534 [] [{none}, {none}, {none}, '1']" in reason, reason
    assert "['BATON_RIP', 'BATON_RPORT', 'BATON_SERVICE', 'LANG', 'PATH']" in reason, reason


def test_program_is_judged_by_its_end_and_its_output_and_ends_with_its_children(served):
    for code, health, reason in [
        ("exit()", {}, None),
        ("print('all well')", {"body": "^all well"}, None),
        ("print('ill')", {"body": "^all well"}, "says something that does not match: ill"),
        ("exit(1)", {}, "ended with exit status: 1"),
        ("import os, time; os.fork(); time.sleep(987654)", {}, "did not end in time"),
        ("while True: print('x' * 1000)", {}, "longer than 64 KiB"),
    ]:
        checked = alone(served, {"type": "exec", "command": ["/usr/bin/python3", "-I", "-c", code], "interval": "1s", "timeout": "1s", **health})
        seen = checked.becomes("down" if reason else "up", 10)
        assert (reason or "") in (seen.get("reason") or ""), (code, seen)
        served.director.clear()
    until = time.monotonic() + 5
    while served.director.host.run(["pgrep", "-f", "sleep.987654"], check=False).stdout:
        assert time.monotonic() < until, "a program outlived its check"
        time.sleep(0.1)


def test_program_that_could_do_harm_is_refused(served):
    for command, says in [(["true"], "full path"), (["/etc/passwd"], "no program")]:
        status, text = served.director.api.raw("POST", "services", f'{{"protocol": "tcp", "address": "{VIP}", "port": 80, "health": {{"type": "exec", '
                                               f'"command": ["{command[0]}"]}}}}')
        assert status == 422 and says in text, text
    assert key() not in served.director.run("baton get services")
