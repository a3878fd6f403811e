#!/usr/bin/python3
"""Counts the instructions that a worker executes for a packet, stage by stage, and holds them to the counts in instructions.json.

    tests/instructions.py            fails if a stage takes more than it may
    tests/instructions.py --update   writes the counts down as what is allowed from now on

Valgrind's callgrind counts what is executed, so that neither the CPU's speed nor its load matters; only what is in our own program
counts, as libraries choose their code by the CPU. Another compiler makes other code: then more is allowed.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = REPOSITORY / "tests/instructions.json"
CASES = {
    "ipv4": "established TCP over IPv4, direct routing",
    "ipv6": "established TCP over IPv6, direct routing",
    "tunnel": "established TCP, IP in IP",
    "masquerading": "established TCP, masquerading, both directions",
    "new": "first packets of connections, round robin",
    "closing": "packets that end connections",
    "expiry": "entries whose time is up, each",
}
# Stages by the functions that are theirs; a name counts for the first stage that it matches.
STAGES = (
    ("glance", r"glance::look"),
    ("established", r"::send_(some|whole|found)|Tracker>::(guess|ask)|::look_closer"),
    ("rewritten", r"rewritten::"),
    ("parse", r"classify::read|parse::"),
    ("schedule", r"first_packet|schedule::|recycle::|ConnectionTable::insert"),
    ("expire", r"::expire|wheel::"),
    ("answers", r"masquerade|translate"),
    ("tunnel", r"tunnel::"),
    ("tables", r"connection::"),
)
REST = "worker"
# Shares of a count, and instructions, by which it may grow; the first share with the compiler that the counts were made with.
TOLERANCE = 0.03
OTHER_COMPILER = 0.15
SLACK = 1.0


def build():
    """The program that plays the cases."""
    command = ["cargo", "bench", "--locked", "--no-run", "-p", "dataplane", "--bench", "rows"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    found = re.search(r"\((target/\S*/rows-\S+)\)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    return REPOSITORY / found[1]


def costs(path, program):
    """Instructions of each function of the program itself, by name, as callgrind wrote them down (Callgrind Format Specification)."""
    names, counts = {}, {}
    place = {"ob": "", "fn": ""}
    called = False
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            named = re.match(r"(ob|fn|cob|cfn)=\((\d+)\)(?: (.*))?$", line)
            if named:
                kind, number, name = named.groups()
                table = kind[-2:]
                if name:
                    names[table, number] = name
                if not kind.startswith("c"):
                    place[kind] = names.get((table, number), "")
            elif line.startswith("calls="):
                called = True
            elif re.match(r"[-+*\d]", line):
                if not called and place["ob"] == str(program):
                    counts[place["fn"]] = counts.get(place["fn"], 0) + int(line.split()[1])
                called = False
    return counts


def count(program, case):
    """Instructions by stage, for one packet of a case."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=*instructions*counted*", f"--callgrind-out-file={out}"]
        command += [str(program), "instructions", "--case", case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
        packets = json.loads(done.stdout)["count"]
        stages = {}
        for name, cost in costs(out, program).items():
            stage = next((stage for stage, pattern in STAGES if re.search(pattern, name)), REST)
            stages[stage] = stages.get(stage, 0) + cost / packets
    stages = {stage: round(cost, 1) for stage, cost in stages.items() if cost >= SLACK}
    return {**{stage: stages[stage] for stage in sorted(stages)}, "all": round(sum(stages.values()), 1)}


def compiler():
    """The version of rustc."""
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def faults(allowed, counted, share):
    """What takes more than it may: case, stage, before, after."""
    for case, stages in counted.items():
        before = allowed.get(case, {})
        for stage, after in stages.items():
            if after > before.get(stage, 0) * (1 + share) + SLACK:
                yield case, stage, before.get(stage, 0), after


def main():
    """Counts, and compares or writes down."""
    parser = argparse.ArgumentParser(description="Instructions a packet, by stage.")
    parser.add_argument("--update", action="store_true", help="write the counts down as what is allowed")
    update = parser.parse_args().update
    program = build()
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        counted = dict(zip(CASES, pool.map(lambda case: count(program, case), CASES)))
    for case, stages in counted.items():
        parts = ", ".join(f"{stage} {cost:g}" for stage, cost in stages.items() if stage != "all")
        print(f"{stages['all']:7.1f}  {CASES[case]}\n         {parts}")
    if update:
        ALLOWED.write_text(json.dumps({"rustc": compiler(), "instructions": counted}, indent=1) + "\n", encoding="utf-8")
        return
    allowed = json.loads(ALLOWED.read_text(encoding="utf-8"))
    same = allowed["rustc"] == compiler()
    if not same:
        print(f"These were counted with rustc {compiler()}, those allowed with {allowed['rustc']}: {OTHER_COMPILER:.0%} more pass.")
    found = list(faults(allowed["instructions"], counted, TOLERANCE if same else OTHER_COMPILER))
    for case, stage, before, after in found:
        print(f"{CASES[case]}: {stage} takes {after:g} instructions instead of {before:g}", file=sys.stderr)
    if found:
        sys.exit("Find out why; if they are worth it, `make instructions ARGS=--update` allows them.")


if __name__ == "__main__":
    main()
