"""One network and one director for all tests: a guest takes minutes to become one."""

import pytest
from appliance import EDGE, EDGE_VIP, LAN, SPREAD, Site, be_patient, bring_package, follow, ready, service
from guide import steps

from lab import VIP6


@pytest.fixture(scope="session")
def site():
    """The network, with real servers that serve and have no VIP yet."""
    with Site() as lab:
        yield lab


@pytest.fixture(scope="session")
def director(site):
    """A guest that became a director by the ten commands; `first_answer` is what the last one printed."""
    with site.guest("baton", [LAN, EDGE, SPREAD]) as guest:
        be_patient(guest)
        bring_package(guest)
        for step in steps():
            if step.where == "real-server":
                for server in site.servers:
                    server.run(step.command)
            elif step.where == "client":
                ready(guest)
                guest.first_answer = site.client.run(step.command).stdout
            else:
                follow(guest, step)
        site.prepare(VIP6, EDGE_VIP)
        guest.run(service(VIP6))
        yield guest
