"""The director that recordings are played against, and the list of scenarios that wait."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import Director, TapWire, Wire, config_text  # noqa: E402
from lab.host import inside  # noqa: E402
from marks import with_our_own_rules  # noqa: E402
from player import Player, packet_socket  # noqa: E402
from recordings import LATER  # noqa: E402


# The neighbourhood must answer before the director looks for its gateway.
RESET = "ipvsadm -C && baton connections flush --yes >/dev/null && baton settings reset >/dev/null && baton marks clear"
SETTING = "baton settings set {name}={value} >/dev/null"


def shell_on(host):
    """What runs a line on a host and returns all that it printed."""
    def shell(line):
        done = host.run(line, check=False)
        return done.stdout + done.stderr
    return shell


@pytest.fixture(scope="session")
def player():
    """Plays against a director with one worker and ttl = "decrement", on a cable of its own."""
    with Wire() as lab:
        # The recorded director was a router: what belongs to no connection went on, and nobody was told of a shorter way.
        for name, value in (("ipv4.ip_forward", 1), ("ipv6.conf.all.forwarding", 1), ("ipv4.conf.all.send_redirects", 0),
                            ("ipv4.conf.default.send_redirects", 0)):
            lab.director.sysctl("net." + name, value)
        with inside(lab.peer.namespace):
            wire = packet_socket("p0")
        player = Player(wire, shell_on(lab.director), SETTING, RESET, translate=with_our_own_rules)
        with Director(lab.director, config_text(lab.device, ttl="decrement")):
            yield player
        player.close()
        wire.close()


@pytest.fixture(scope="session")
def player_of_fragments():
    """The same on a TAP, which leaves fragments as they are."""
    with TapWire() as lab, Director(lab.director, config_text(lab.device, ttl="decrement")):
        lab.quieten()
        with inside(lab.director.namespace):
            wire = packet_socket("d0")
        player = Player(wire, shell_on(lab.director), SETTING, RESET, translate=with_our_own_rules)
        yield player
        player.close()
        wire.close()


def pytest_terminal_summary(terminalreporter):
    """Names what is not played yet: nothing is left out in silence."""
    terminalreporter.section(f"{len(LATER)} recorded scenarios wait for what is not built yet")
    for name, reason in LATER.items():
        terminalreporter.line(f"later  {name}  ({reason})")
