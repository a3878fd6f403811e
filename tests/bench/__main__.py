"""`make bench`: every figure of speed, beside the least and the best that is wanted of it.

The machine is shared, so what is compared is measured in turn, many times, and the best of each counts: others' load only ever adds.
Every sample is kept in target/bench.json, and a graph in target/bench.svg.

examples:
  make bench                                   all of it, in under ten minutes
  make bench QUICK=1                           a look, in under 90 seconds
  make bench ARGS="--only masquerading"        one row, or several: --only change --only macswap
  make bench ARGS=--markdown                   the table of README.md
  make bench ARGS=--json                       everything that was measured

The exit status is 0 when every row was measured, also where a target was missed, and 1 when one could not be.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import graph  # noqa: E402
import inside  # noqa: E402
import loading  # noqa: E402
import machine  # noqa: E402
import show  # noqa: E402
import wire  # noqa: E402
from cells import Row  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.topology import REPOSITORY  # noqa: E402


@dataclass
class Part:
    """A row of the table, how it is measured, and what that takes: seconds and MiB of huge pages, at length and quick."""

    name: str
    title: str
    measure: Callable
    seconds: tuple
    huge: tuple


PARTS = (
    Part("macswap", "64-byte TCP, established, direct routing, 1 worker, over testpmd macswap (net_pcap)", wire.macswap, (60, 14), (1200, 1200)),
    Part("pipeline", "pipeline in process: added to a MAC swap of the same frames", inside.pipeline, (110, 4), (5400, 200)),
    Part("methods", "IPv6, tunnel, masquerading over IPv4 direct routing", inside.methods, (16, 2), (200, 200)),
    Part("services", "10 000 services with 100 000 real servers against one service", inside.services, (30, 5), (400, 400)),
    Part("births", "new connections a second, scheduled and inserted", inside.births, (70, 5), (1000, 200)),
    Part("lives", "whole TCP connections a second", inside.lives, (45, 2), (200, 100)),
    Part("memory", "memory per connection, all overhead", inside.memory, (4, 2), (500, 200)),
    Part("expiry", "cost of expiry", inside.expiry, (20, 3), (1100, 200)),
    Part("statistics", "statistics per service and real server", inside.counting, (2, 1), (0, 0)),
    Part("workers", "two workers against one, control idle", wire.workers, (35, 10), (1200, 1200)),
    Part("change", "a change under full load", wire.changes, (15, 5), (600, 600)),
    Part("loading", "loading a large configuration", loading.load, (15, 4), (300, 300)),
    Part("busy", "control plane busy: 1000 requests a second, listing all connections", wire.control_busy, (45, 12), (800, 700)),
    Part("latency", "latency added at half load", inside.latency, (12, 4), (0, 0)),
    Part("idle", 'a worker without traffic in idle = "adaptive"', inside.idle, (8, 3), (0, 0)),
    Part("index", "the connection index beside hashbrown", inside.indexes, (15, 4), (600, 200)),
)


class Bare(Lab):
    """Hosts for directors without any link: their frames come from files."""

    def build(self):
        self.director = self.host("director")
        self.other = self.host("other")


class Bench:
    """What the parts share."""

    def __init__(self, lab, quick):
        self.lab, self.quick, self.huge = lab, quick, False
        self.pairs, self.window = (3, 0.4) if quick else (9, 0.8)
        self.families, self.graph, self.indexes = inside.Families(), [], []
        self.memory_folder = Path(tempfile.mkdtemp(prefix="baton-bench-", dir="/dev/shm"))
        self.at = ""

    def say(self, text):
        """What is being done now, in one line that the next one replaces."""
        line = f"{self.at}: {text}" if text else self.at
        if sys.stderr.isatty():
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def measure(bench, parts, pages):
    """All rows, in order; what failed says so, and the others are measured nevertheless."""
    rows = []
    seconds = [part.seconds[bench.quick] for part in parts]
    for n, part in enumerate(parts):
        bench.at = f"[{n + 1} of {len(parts)}, about {sum(seconds[n:]):.0f} s left] {part.name}"
        bench.say("")
        row, began = Row(part.name, part.title), time.monotonic()
        try:
            with pages.taken(part.name, part.huge[bench.quick]) as bench.huge:
                result = part.measure(bench)
            if part.name == "index":
                bench.indexes = result
            else:
                row.cells = result
        except Exception as error:  # noqa: BLE001 - whatever a part dies of, the others go on
            row.failure = "".join(traceback.format_exception_only(error))
        row.seconds = time.monotonic() - began
        if row.cells or row.failure:
            rows.append(row)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return rows


def chosen(words):
    """The parts that the words name, all of them without any."""
    parts = [part for part in PARTS if not words or any(word.lower() in f"{part.name} {part.title}".lower() for word in words)]
    unknown = [word for word in words if not any(word.lower() in f"{part.name} {part.title}".lower() for part in PARTS)]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: no row has this in its name or title; names are {', '.join(part.name for part in PARTS)}")
    return parts


def main():
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="rows with this word in their name or title; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples, smaller tables: a look, not a measurement")
    parser.add_argument("--save", type=Path, default=REPOSITORY / "target", metavar="FOLDER", help="where bench.json and bench.svg go; target, when left out")
    parser.add_argument("--json", action="store_true", help="print everything that was measured")
    parser.add_argument("--markdown", action="store_true", help="print the table as README.md has it")
    arguments = parser.parse_args()
    parts, pages, began = chosen(arguments.only), machine.HugePages(), time.monotonic()
    report = machine.description()
    with Bare() as lab, contextlib.ExitStack() as cleanup:
        bench = Bench(lab, arguments.quick)
        cleanup.callback(shutil.rmtree, bench.memory_folder, ignore_errors=True)
        rows = measure(bench, parts, pages)
    report |= {
        "command": "make bench" + (" QUICK=1" if arguments.quick else "") + (f' ARGS="{" ".join("--only " + word for word in arguments.only)}"' if arguments.only else ""),
        "quick": arguments.quick, "seconds": round(time.monotonic() - began), "without_huge_pages": pages.missed,
        "rows": [row.document() for row in rows], "graph": bench.graph, "indexes": bench.indexes,
    }
    save(report, arguments.save)
    if arguments.json:
        print(json.dumps(report, indent=2))
    elif arguments.markdown:
        print("\n".join(show.markdown(report, rows)))
    else:
        print("\n".join(show.table(report, rows, sys.stdout.isatty() and not os.environ.get("NO_COLOR"))))
    for row in rows:
        if row.failure:
            print(f"{row.name} could not be measured: {row.failure}", file=sys.stderr)
    return 1 if any(row.failure for row in rows) else 0


def save(report, folder):
    """bench.json and, if there is anything to draw, bench.svg."""
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    if len(report["graph"]) > 1:
        caption = f"{report['machine']}, Linux {report['kernel']}, {report['date']}"
        (folder / "bench.svg").write_text(graph.draw(report["graph"], caption))
        print(f"the graph is {folder / 'bench.svg'}", file=sys.stderr)
    print(f"{report['seconds']} s; every sample is in {folder / 'bench.json'}", file=sys.stderr)


sys.exit(main())
