"""Networks with a running director, shared by the tests of a module; every test begins without services, connections and settings."""

from types import SimpleNamespace

import pytest
from networks import classic_network

from lab import Capture, Director, Wire, config_text, ready_binary


def _fresh(network):
    network.director.clear()
    return network


@pytest.fixture(scope="module")
def classic_module():
    """One worker."""
    with classic_network() as network:
        yield network


@pytest.fixture
def classic(classic_module):
    """The classic topology with one worker."""
    return _fresh(classic_module)


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def classics_module(request):
    """One worker, then two."""
    with classic_network(request.param) as network:
        yield network


@pytest.fixture
def classics(classics_module):
    """The classic topology, once with one worker and once with two."""
    return _fresh(classics_module)


@pytest.fixture(scope="module")
def wire_module():
    """A director alone on a cable, without gateways: it has nobody to speak to unless the test speaks."""
    with Wire() as lab:
        with Director(lab.director, config_text(lab.device, gateways=())) as director, Capture(lab.peer, "p0") as cable:
            yield SimpleNamespace(lab=lab, director=director, cable=cable)


@pytest.fixture
def wire(wire_module):
    """A cable to a director whose other end is the test: it sends frames and sees what comes out."""
    network = _fresh(wire_module)
    network.cable.frames()
    return network


@pytest.fixture
def lonely():
    """A cable and a director's host on which no director runs yet."""
    with Wire() as lab:
        ready_binary(lab)
        yield lab


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What the director said goes with a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        values = [getattr(value, "director", value) for value in getattr(item, "funcargs", {}).values()]
        for director in {id(value): value for value in values if isinstance(value, Director)}.values():
            report.sections.append(("the director's log", "\n".join(director.log().splitlines()[-15:])))
