"""What tests of health checks share: services that are checked, and waiting for what the checks say."""

import time

from lab import VIP


def key(protocol="tcp", vip=VIP, port=80):
    """A virtual service's id."""
    return f"{protocol}:[{vip}]:{port}" if ":" in vip else f"{protocol}:{vip}:{port}"


def service(network, health, vip=VIP, protocol="tcp", port=80, **more):
    """A virtual service over all real servers with these checks."""
    servers = [{"address": server.address6 if ":" in vip else server.address} for server in network.servers]
    spec = {"protocol": protocol, "address": vip, "port": port, "scheduler": "rr", "health": health, "real_servers": servers, **more}
    network.director.api.post("services", spec)


def health(network, server, vip=VIP, protocol="tcp", port=80):
    """What is said of a real server's health, with its state."""
    address = f"[{server.address6}]" if ":" in vip else server.address
    seen = network.director.api.real_server(key(protocol, vip, port), f"{address}:{port}")
    return {**seen["health"], "effective": seen["state"]}


def becomes(network, server, state, within, vip=VIP, protocol="tcp", port=80):
    """Waits until a real server's health is `state`; what is said of it then."""
    until = time.monotonic() + within
    while (seen := health(network, server, vip, protocol, port))["state"] != state:
        assert time.monotonic() < until, f"{server.name} is not {state} after {within} s: {seen}"
        time.sleep(0.02)
    return seen


def all_up(network, vip=VIP):
    """Waits until every real server is up."""
    for server in network.servers:
        becomes(network, server, "up", 5, vip)


def certificate(host):
    """A certificate for shop.example that is its own authority."""
    host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=shop.example",
              "-addext", "subjectAltName=DNS:shop.example", "-addext", "basicConstraints=critical,CA:FALSE",
              "-keyout", host.folder / "key.pem", "-out", host.folder / "ca.pem"])
