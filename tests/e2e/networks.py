"""What tests set up again and again: a running network, and a virtual service on it."""

import contextlib
from types import SimpleNamespace

from lab import Classic, Director, config_text, ready_binary


@contextlib.contextmanager
def classic_network(workers=1, attach="af_packet", **config):
    """Client, router, director and three real servers that serve and are prepared for the VIPs."""
    with Classic(attach=attach) as lab:
        ready_binary(lab)
        lab.prepare()
        lab.serve()
        joined = lab.join_tap if attach == "tap" else None
        with Director(lab.director, config_text(lab.device, workers=workers, **config), started=joined) as director:
            yield SimpleNamespace(lab=lab, director=director, client=lab.client, servers=lab.servers, workers=workers)


def text(address):
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def configure(network, vip, scheduler="rr", weights=(1, 1, 1), flag="-t", port=80):
    """A virtual service with a real server for each weight."""
    service = f"{flag} {text(vip)}:{port}"
    network.director.ipvsadm(f"-A {service} -s {scheduler}")
    for server, weight in zip(network.servers, weights):
        # ipvsadm takes a bracketed address with its port only.
        rip = f"[{server.address6}]:{port}" if ":" in vip else server.address
        network.director.ipvsadm(f"-a {service} -r {rip} -g -w {weight}")


def counted(network, answers):
    """How many answers each real server gave, in order."""
    return [answers[server.name] for server in network.servers]
