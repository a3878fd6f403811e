"""Rows that the real programs give over DPDK's net_pcap: frames from memory, endlessly."""

import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import capture
from asker import RATE
from cells import Cell
from inside import millions
from lab.director import cores
from lab.topology import VIP
from programs import Baton, Testpmd, config, lost

MEMORY_MB = 512
SERVICE = f"services/tcp:{VIP}:80"


def macswap(bench):
    """Frames a second of the director over those of testpmd macswap, in turn on one core."""
    cells = []
    for flows in (4096, 100_000):
        path = bench.lab.folder / f"flows-{flows}.pcap"
        capture.write(path, flows)
        mbufs, device = flows + 16384, capture.endless(path)
        text = config([device], connections=max(flows * 2, 65536), mbufs=mbufs, memory_mb=MEMORY_MB, huge=bench.huge)
        # One program's start must not meet the other one on its core.
        with Testpmd(bench.lab, device, mbufs, MEMORY_MB, bench.huge) as testpmd, testpmd.paused, Baton(bench.lab.director, text) as baton:
            baton.await_connections(flows)
            # Short windows: the core may be another one's, too, for seconds, and neither side is to have the better part.
            pairs, many = [], bench.pairs * 3
            for pair in range(many):
                bench.say(f"{millions(flows)} flows, pair {pair + 1} of {many}")
                pairs.append((testpmd.rate(bench.window / 2), baton.rate(bench.window / 2)))
        swap, director = (max(pair[side] for pair in pairs) for side in (0, 1))
        median = statistics.median(baton / testpmd for testpmd, baton in pairs)
        note = f"macswap {swap / 1e6:.1f} Mpps ({1e9 / swap:.1f} ns), director {director / 1e6:.1f} Mpps ({1e9 / director:.1f} ns); median of pairs {median:.2f}"
        note += disturbed("macswap", [pair[0] for pair in pairs])
        cells.append(Cell(f"{millions(flows)} flows", director / swap, "x", 0.5, 0.62, True, pairs, note))
    return cells


def disturbed(what, rates):
    """What to say when the rates that nothing was to change varied nevertheless."""
    spread = 1 - min(rates) / max(rates)
    return f"; {what} varied by {spread:.0%}: the machine was not quiet" if spread > 0.15 else ""


def workers(bench):
    """Frames a second of two workers over those of one, in turn; each worker has flows of its own."""
    used = cores(2)[1]
    spins = spin(bench, used)
    flows, paths = 4096, [bench.lab.folder / f"workers-{n}.pcap" for n in range(2)]
    for n, path in enumerate(paths):
        capture.write(path, flows, first=n * flows)
    options = {"connections": 65536, "mbufs": 2 * flows + 32768, "memory_mb": MEMORY_MB, "huge": bench.huge}
    one = config([capture.endless(paths[0])], **options)
    two = config([capture.endless(*paths)], workers=2, **options)
    with Baton(bench.lab.director, one) as alone:
        alone.await_connections(flows)
        # A host has one folder for the files of its director.
        with Baton(bench.lab.other, two) as both:
            both.await_connections(2 * flows)
            pairs = []
            for pair in range(bench.pairs):
                bench.say(f"pair {pair + 1} of {bench.pairs}")
                pairs.append((alone.rate(bench.window), both.rate(bench.window)))
    best = [max(pair[side] for pair in pairs) for side in (0, 1)]
    note = f"{best[0] / 1e6:.1f} and {best[1] / 1e6:.1f} Mpps; plain arithmetic on both cores gives {spins:.2f} of one"
    note += disturbed("one", [pair[0] for pair in pairs])
    told = spins >= 1.9
    if not told:
        note += "; so these are not two whole cores, or not ours alone"
    return [Cell("2 workers", best[1] / best[0], "x", 1.8, 1.95, True, pairs, note, can_tell=told)]


def spin(bench, used):
    """What arithmetic in registers gains from a second core: 2, unless the two share one or have not all of it."""
    program = str(bench.families.build())

    def turns(chosen):
        running = [
            subprocess.Popen(["taskset", "-c", str(core), program, "spin", "--milliseconds", "300"], stdout=subprocess.PIPE, text=True) for core in chosen]
        return sum(float(process.communicate(timeout=30)[0]) for process in running)

    alone, both = (max(turns(chosen) for _ in range(3)) for chosen in (used[:1], used))
    return both / alone


class Keeping:
    """One connection to the API that is kept, so that a request costs what the request costs."""

    def __init__(self, path):
        self.connection = http.client.HTTPConnection("localhost", timeout=10)
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.settimeout(10)
        self.connection.sock.connect(str(path))

    def call(self, method, path, document=None):
        """Sends one request and reads the answer."""
        headers = {"Content-Type": "application/json"} if document else {}
        self.connection.request(method, "/api/v1/" + path, json.dumps(document) if document else None, headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {body[:500]}")
        return body


def changes(bench):
    """Time of a request that changes a weight, answered when every worker runs the change, and frames lost meanwhile."""
    flows, count = 4096, 200 if bench.quick else 2000
    path = bench.lab.folder / "changes.pcap"
    capture.write(path, flows)
    # Workers do not wait for the disk, so neither does what is measured: the state file is in memory.
    text = config([capture.endless(path)], connections=65536, mbufs=flows + 16384, memory_mb=MEMORY_MB, huge=bench.huge, more=f'state = "{bench.memory_folder}/state.json"')
    with Baton(bench.lab.director, text) as baton:
        baton.await_connections(flows)
        with baton.paused:
            keeping, before, times = Keeping(baton.api.path), baton.verdicts(), []
            for n in range(count):
                if n % 100 == 0:
                    bench.say(f"change {n} of {count}")
                start = time.monotonic()
                keeping.call("PATCH", f"{SERVICE}/real-servers/10.10.24.21:80", {"weight": 2 + n % 50})
                times.append((time.monotonic() - start) * 1e3)
            gone = lost(before, after := baton.verdicts())
    times.sort()
    forwarded = after["forwarded"] - before.get("forwarded", 0)
    note = f"from the request to its answer, {count} changes, 1 worker, p50 {times[len(times) // 2]:.2f}, longest {times[-1]:.1f} ms"
    return [
        Cell("visible on every worker, p99", times[int(len(times) * 0.99)], "ms", 10, 1, False, times, note),
        Cell("frames lost by it", sum(gone.values()), "frames", 0, 0, False, gone, f"of {forwarded / 1e6:.0f} million forwarded meanwhile"),
    ]


def control_busy(bench):
    """What the forwarding rate loses while the control plane answers 1000 requests a second and lists all connections."""
    listed, flows = (100_000 if bench.quick else 1_000_000), 4096
    fill, hot = bench.lab.folder / "fill.pcap", bench.lab.folder / "busy.pcap"
    bench.say("capture of all connections")
    # Twice, as the first frames may come before the service is there.
    capture.write(fill, listed, first=flows, rounds=2, mac=capture.SECOND_PORT_MAC)
    capture.write(hot, flows)
    text = config(
        [capture.endless(hot), capture.once(fill)], connections=(listed + flows) // 8 * 9, mbufs=flows + 32768, memory_mb=MEMORY_MB, huge=bench.huge)
    with Baton(bench.lab.director, text) as baton:
        baton.await_connections(listed + flows)
        pairs, asked = [], []
        for pair in range(bench.pairs):
            bench.say(f"pair {pair + 1} of {bench.pairs}")
            quiet = baton.rate(bench.window)
            with baton.paused, Askers(baton.api.path) as askers:
                time.sleep(0.2)
                before, began = baton.forwarded()
                time.sleep(bench.window)
                after, ended = baton.forwarded()
            pairs.append((quiet, (after - before) / (ended - began)))
            asked.append(askers.told())
    best = [max(pair[side] for pair in pairs) for side in (0, 1)]
    rates = [statistics.median(one[key] for one in asked) for key in ("requests", "rows")]
    note = f"{best[0] / 1e6:.1f} and {best[1] / 1e6:.1f} Mpps; {rates[0]:.0f} requests a second and {rates[1] / 1e6:.2f} M connections listed a second, table of {millions(listed)}"
    note += disturbed("without load", [pair[0] for pair in pairs])
    told = rates[0] >= 0.9 * RATE
    if not told:
        note += "; the control core had no time for more"
    return [Cell("change of the forwarding rate", (best[1] / best[0] - 1) * 100, "%", -5, -1, True, {"pairs": pairs, "asked": asked}, note, told)]


class Askers:
    """Two programs on the control core: one asks 1000 times a second, one lists connections page by page."""

    def __init__(self, path):
        self.path, self.said = str(path), None

    def __enter__(self):
        program = str(Path(__file__).with_name("asker.py"))
        core = str(cores(1)[0])
        self.processes = [
            subprocess.Popen(["taskset", "-c", core, sys.executable, program, self.path, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for what in ("requests", "rows")]
        return self

    def __exit__(self, *error):
        # They end when their input does, and say what they did.
        try:
            self.said = [json.loads(process.communicate(timeout=20)[0]) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def told(self):
        """{"requests": a second, "rows": a second}."""
        return {name: rate for said in self.said for name, rate in said.items()}
