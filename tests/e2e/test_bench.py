"""`make bench` itself: what it says of figures, and that it tells a row that could not be measured."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from lab.director import binary
from lab.topology import REPOSITORY

BENCH = REPOSITORY / "tests" / "bench"
sys.path.insert(0, str(BENCH))

import graph  # noqa: E402
import show  # noqa: E402
from cells import Cell, Row  # noqa: E402


@pytest.mark.parametrize(
    "value, more_is_better, verdict",
    [(0.7, True, "aim"), (0.62, True, "aim"), (0.5, True, "at least"), (0.49, True, "missed"), (0.49, False, "aim"), (0.6, False, "at least"), (0.7, False, "missed")])
def test_a_figure_is_judged_by_both_targets(value, more_is_better, verdict):
    at_least, aim = (0.5, 0.62) if more_is_better else (0.62, 0.5)
    assert Cell("", value, "x", at_least, aim, more_is_better).verdict == verdict


@pytest.mark.parametrize("value, more_is_better, figure", [(0.4981, True, "0.498 ns"), (0.4999, True, "0.4999 ns"), (0.5, True, "0.50 ns"), (0.6204, False, "0.6204 ns")])
def test_a_figure_has_as_many_digits_as_show_its_verdict(value, more_is_better, figure):
    at_least, aim = (0.5, 0.62) if more_is_better else (0.62, 0.5)
    assert Cell("", value, "ns", at_least, aim, more_is_better).figure == figure


def test_a_figure_that_this_machine_cannot_tell_is_neither_reached_nor_missed():
    assert Cell("", 9.0, "x", 1, 2, can_tell=False).verdict == "cannot tell"


REPORT = {"machine": "a machine", "kernel": "6.1", "date": "2026-01-01", "commit": "abc", "without_huge_pages": [], "indexes": [], "command": "make bench"}


def test_every_row_is_in_the_table_with_its_verdict_in_words():
    rows = [Row("a", "first", [Cell("one", 5.0, "ns", 16, 10, False)]), Row("b", "second", failure="RuntimeError: no testpmd\n")]
    for lines in (show.table(REPORT, rows, colour=False), show.markdown(REPORT, rows)):
        text = "\n".join(lines)
        assert "aim reached" in text and "5.00 ns" in text
        assert "no testpmd" in text and "failed" in text.lower()


def test_the_graph_has_its_series_over_a_logarithmic_axis():
    points = [{"connections": n, "macswap_ns": 15.0, "director_ns": 15.0 + i, "lines_ns": 5.0 * i} for i, n in enumerate((1_000, 100_000, 10_000_000))]
    root = xml.etree.ElementTree.fromstring(graph.draw(points, "a machine <1>"))
    drawn = [line.get("points").split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line) for line in drawn] == [3, 3, 3]
    first, second, third = (float(point.partition(",")[0]) for point in drawn[0])
    assert second - first == pytest.approx(third - second, abs=0.2)


def bench(folder, *words, **env):
    return subprocess.run(
        [sys.executable, str(BENCH), "--save", str(folder), *words], env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)


def test_a_row_is_measured_and_every_sample_kept(tmp_path):
    done = bench(tmp_path, "--quick", "--json", "--only", "change under", BATON=str(binary()))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert json.loads((tmp_path / "bench.json").read_text()) == report
    visible, lost = report["rows"][0]["cells"]
    assert len(visible["samples"]) == 200 and visible["value"] > 0
    assert lost["value"] == 0


def test_a_row_that_could_not_be_measured_fails_the_run(tmp_path):
    done = bench(tmp_path, "--quick", "--only", "loading", BATON="/bin/false")
    assert done.returncode == 1
    assert "loading could not be measured" in done.stderr and "FAILED" in done.stdout


def test_a_row_that_there_is_not_is_refused_with_the_names_of_those_that_there_are(tmp_path):
    done = bench(tmp_path, "--only", "warp")
    assert done.returncode != 0
    assert "warp" in done.stderr and "macswap" in done.stderr
