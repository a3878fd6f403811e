"""The director does what the kernel's IPVS did, frame by frame and listing by listing."""

import pytest
from recordings import LATER, has_fragments, load

SCENARIOS = load()
PLAYED = [scenario for scenario in SCENARIOS if scenario["name"] not in LATER]


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario["name"])
def test_director_does_as_the_kernel_did(request, scenario):
    player = request.getfixturevalue("player_of_fragments" if has_fragments(scenario) else "player")
    differences = player.play(scenario)
    assert not differences, "\n" + "\n".join(map(str, differences))


def test_every_scenario_is_played_or_named_as_later():
    names = [scenario["name"] for scenario in SCENARIOS]
    assert len(names) == len(set(names))
    assert set(LATER) <= set(names)
    assert {"rr", "wrr-4-3-2", "lc-mixed", "wlc-mixed", "quiesce", "malformed", "no-service", "tcp-states-dr", "v6-rr", "v6-wrr"} <= {
        scenario["name"] for scenario in PLAYED}
