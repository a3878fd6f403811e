"""Rows that `dataplane/benches/rows` measures inside one process; each family is one process."""

import json
import os
import re
import signal
import statistics
import subprocess

from lab.topology import REPOSITORY

from cells import Cell


class Families:
    """Builds the bench once, and runs its families."""

    def __init__(self):
        self.program = None

    def build(self):
        """The program; cargo says nothing when there is nothing to do."""
        if self.program is None:
            command = ["cargo", "bench", "--locked", "--no-run", "-p", "dataplane", "--bench", "rows"]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            found = re.search(r"\((target/\S*/rows-\S+)\)", done.stderr)
            if done.returncode or not found:
                raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
            self.program = REPOSITORY / found[1]
        return self.program

    def quieter(self):
        """The CPU that is faster at arithmetic now: on a shared machine its cores differ, for as long as others use them."""
        program, turns = str(self.build()), {}
        for _ in range(3):
            for cpu in sorted(os.sched_getaffinity(0)):
                done = subprocess.run(["taskset", "-c", str(cpu), program, "spin", "--milliseconds", "20"], capture_output=True, text=True, check=True)
                turns[cpu] = max(turns.get(cpu, 0), float(done.stdout))
        return max(turns, key=turns.get)

    def run(self, family, env=None, timeout=300, **options):
        """What a family says, measured on the quieter CPU."""
        words = [str(self.build()), family, "--cpu", str(self.quieter())]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        try:
            out, error = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            why = signal.Signals(-process.returncode).name if process.returncode < 0 else f"status {process.returncode}"
            raise RuntimeError(f"{' '.join(words[1:])} ended with {why}: {error[-2000:]}")
        return json.loads(out)


def millions(n):
    """65 536 stays, 1 000 000 is 1 M."""
    return f"{n / 1e6:g} M" if n >= 1_000_000 else f"{n:,}".replace(",", " ")


# Connections: (at least, aim) in ns added.
PIPELINE = {65_536: (16, 10), 1_000_000: (18, 11), 10_000_000: (25, 18), 50_000_000: (30, 22)}


def add(whole, part):
    """Puts what a family says to what it said before: lists grow, whatever they are in."""
    for name, value in part.items():
        if isinstance(value, list):
            whole.setdefault(name, []).extend(value)
        elif isinstance(value, dict):
            add(whole.setdefault(name, {}), value)
        else:
            whole[name] = value


def pipeline(bench):
    """Nanoseconds added to a MAC swap by number of connections, beside those for its lines of memory alone; also what the graph shows."""
    sizes = [4096, 65_536, 1_000_000] if bench.quick else [4096, *PIPELINE]
    cells, said = [], {}
    # Time and again, as the machine is another one's, too, for seconds; the largest tables take long to fill.
    for turn in range(1 if bench.quick else 4):
        for size in sizes:
            if turn < 2 or size <= 1_000_000:
                bench.say(f"{millions(size)} connections, turn {turn + 1}")
                add(said.setdefault(size, {}), bench.families.run("established", connections=size, rounds=180 if bench.quick else 9000))
    for size, samples in said.items():
        swap, director, lines = (min(samples[f"{what}_ns"]) for what in ("macswap", "director", "lines"))
        bench.graph.append({"connections": size, "macswap_ns": swap, "director_ns": director, "lines_ns": lines})
        if size in PIPELINE:
            at_least, aim = PIPELINE[size]
            note = f"MAC swap {swap:.1f}, director {director:.1f}; a random line of such an index and one of such entries alone {lines:.1f}"
            cells.append(Cell(f"{millions(size)} connections", director - swap, "ns", at_least, aim, False, samples, note))
    return cells


def repeated(bench, family, times, **options):
    """What a family says in several processes, one after the other: its lists are one, as the machine is another one's, too, for seconds."""
    whole = {}
    for turn in range(1 if bench.quick else times):
        bench.say(f"turn {turn + 1} of {times}")
        add(whole, bench.families.run(family, **options))
    return whole


def methods(bench):
    """Rates against IPv4 direct routing."""
    said = repeated(bench, "methods", 4, rounds=180 if bench.quick else 4500)
    best = {name: min(samples) for name, samples in said["ns"].items()}

    def cell(name, what, at_least, aim):
        note = f"{best[name]:.1f} ns a packet, IPv4 direct routing {best['ipv4']:.1f}"
        return Cell(what, best["ipv4"] / best[name], "x", at_least, aim, True, {"connections": said["connections"], "ns": said["ns"]}, note)

    return [cell("ipv6", "IPv6", 0.8, 0.9), cell("tunnel", "tunnel (IP in IP)", 0.7, 0.85), cell("masquerading", "masquerading, both directions", 0.6, 0.75)]


def services(bench):
    """What many services add."""
    said = repeated(bench, "services", 4, rounds=180 if bench.quick else 4500)
    one, many = min(said["one_ns"]), min(said["many_ns"])
    note = f"{one:.1f} ns a packet with one, {many:.1f} with many; {millions(said['connections'])} connections each, drawn at random"
    return [Cell(f"{millions(said['services'])} services, {millions(said['real_servers'])} real servers", (many - one) / one * 100, "%", 15, 5, False, said, note)]


def births(bench):
    """SYNs of new clients, by scheduler and size of the table."""
    sizes = [(1_000_000, 9, 5, 10)] if bench.quick else [(1_000_000, 9, 5, 10), (10_000_000, 3, 4, 8)]
    cells = []
    for capacity, fillings, at_least, aim in sizes:
        fillings, said = 1 if bench.quick else fillings, {}
        for filling in range(fillings):
            for scheduler in ("rr", "wlc", "mh"):
                bench.say(f"{scheduler}, {millions(capacity)}, table {filling + 1} of {fillings}")
                said.setdefault(scheduler, []).append(bench.families.run("births", capacity=capacity, scheduler=scheduler))
        for scheduler, tables in said.items():
            parts = [ns for table in tables for ns in table["ns"]]
            note = f"best eighth of {fillings} {'table' if fillings == 1 else 'tables'} from half full to full; slowest {1e3 / max(parts):.1f} M/s"
            cells.append(Cell(f"{scheduler}, table of {millions(capacity)}", 1e3 / min(parts), "M/s", at_least, aim, True, tables, note))
    return cells


def lives(bench):
    """Whole TCP connections."""
    said = repeated(bench, "lives", 4, live=200_000 if bench.quick else 1_000_000, parts=3 if bench.quick else 9)
    note = f"{min(said['ns']):.0f} ns each; {millions(said['live'])} entries, as many end as begin"
    return [Cell("SYN, ACK, data, FIN, ACK, expiry", 1e3 / min(said["ns"]), "M/s", 2, 4, True, said, note)]


def memory(bench):
    """Bytes a connection."""
    said = bench.families.run("memory", connections=1_000_000 if bench.quick else 4_000_000)
    return [
        Cell(name, said[family]["bytes_each"], "B", at_least, aim, False, said[family], f"{millions(said[family]['connections'])} accepted, then full")
        for name, family, at_least, aim in (("IPv4", "ipv4", 64, 32), ("IPv6", "ipv6", 96, 64))
    ]


def expiry(bench):
    """Share of a core that ending idle connections takes."""
    idle = 1_000_000 if bench.quick else 10_000_000
    said = bench.families.run("expiry", connections=idle, rounds=400 if bench.quick else 2000)
    share = statistics.median(said["share"]) * 100
    note = f"median of {len(said['share'])}, {min(said['share']) * 100:.2f} to {max(said['share']) * 100:.2f}; clock 100 times as fast, cost divided by 100"
    return [Cell(f"{millions(idle)} idle connections", share, "%", 3, 1, False, said, note)]


def counting(bench):
    """Statistics."""
    said = bench.families.run("statistics", rounds=600 if bench.quick else 3000)
    note = "loops over bursts with and without counting, lines in the cache"
    return [Cell("service and real server", min(said["with_ns"]) - min(said["without_ns"]), "ns", 3, 1, False, said, note)]


def latency(bench):
    """Latency added at half load: the director's less a MAC swap's in the same place, at the same rate."""
    said = bench.families.run("latency", parts=3 if bench.quick else 9)
    cells = []
    for name, key, at_least, aim in (("p50", "p50_ns", 5, 1), ("p99", "p99_ns", 50, 10), ("p99.9", "p999_ns", 200, 50)):
        swap, director = (min(part[key] for part in said[side]) / 1e3 for side in ("macswap", "director"))
        note = f"{said['offered_mpps']:.1f} Mpps; ring to ring {director:.2f} us, MAC swap {swap:.2f} us"
        # What swaps MACs is held up by whoever else has the cores, and so is the director: then the difference says nothing.
        told = swap <= at_least
        note += "" if told else "; the cores were not ours"
        cells.append(Cell(name, director - swap, "us", at_least, aim, False, said if key == "p50_ns" else None, note, told))
    return cells


def idle(bench):
    """A worker without traffic."""
    said = bench.families.run("idle", milliseconds=1000 if bench.quick else 3000, bursts=10 if bench.quick else 50)
    lost = {kind: sum(losses) for kind, losses in said["lost"].items()}
    return [
        Cell("CPU of a worker", said["cpu"] * 100, "%", 5, 1, False, said),
        Cell("lost of bursts of 1000 at once", lost["at_once"], "frames", 0, 0, False, None, f"{said['bursts']} bursts, each after 20 ms of idling, receive queue of 1024"),
        Cell("lost of bursts at 2 Mpps", lost["paced"], "frames", 0, 0, False, None, f"{said['bursts']} bursts of 2 ms"),
    ]


def indexes(bench):
    """The fixed bucket table beside hashbrown; no targets."""
    # Both on huge pages, for which glibc has to be asked.
    env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"}
    options = {"connections": 100_000 if bench.quick else 1_000_000, "rounds": 180 if bench.quick else 900}
    return [bench.families.run("index", env=env, table=table, **options) for table in ("fixed", "hashbrown", "hashbrown_inline")]
