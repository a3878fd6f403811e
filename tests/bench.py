"""`make bench`: what the director costs a packet, next to what moving the packet costs anyway.

Two tables. The first plays one endless capture of 64-byte TCP segments to dpdk-testpmd in macswap mode and to the director, in turn, on
the same core; the ratio of the two is what counts, as these machines are shared. The second measures the pipeline inside one process.

usage: bench.py [--pairs N] [--seconds S] [--connections N,N] [--json] [--quick]
"""

import argparse
import contextlib
import json
import os
import pty
import re
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import frames  # noqa: E402
from lab.director import Director, cores  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.topology import REPOSITORY, VIP  # noqa: E402

FLOWS = (4096, 100_000)
TARGET = 0.40
# What DPDK gives the first port of its driver net_pcap.
PORT_MAC = bytes.fromhex("027063617000")
SERVERS = 4
HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
MEMORY_MB = 1024


class Bare(Lab):
    """One host, the director, without any link: its frames come from a file."""

    def build(self):
        self.director = self.host("director")


@contextlib.contextmanager
def huge_pages(megabytes):
    """Reserves huge pages of 2 MiB for both programs while the measurement lasts; yields whether the kernel had them to give.

    Without them the misses of address translation, not the programs, are what is measured.
    """
    count = HUGE_PAGES / "nr_hugepages"
    before = count.read_text() if count.exists() else "0"
    try:
        try:
            count.write_text(str(int(before) + megabytes // 2))
            enough = int((HUGE_PAGES / "free_hugepages").read_text()) * 2 >= megabytes
        except OSError:
            enough = False
        yield enough
    finally:
        with contextlib.suppress(OSError):
            count.write_text(before)


def write_capture(path, flows):
    """An endless capture's one round: a segment of each flow, in the order of a multiplicative walk, so that neighbours are not neighbours."""
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        step = 7919
        for n in range(flows):
            flow = n * step % flows
            client = f"198.{18 + (flow >> 16)}.{flow >> 8 & 255}.{flow & 255}"
            frame = PORT_MAC + frames.tcp(client, VIP, 1024 + flow % 60000, 80, "A")[6:].ljust(54, b"\0")
            out.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def device(path):
    """The DPDK device that gives the capture again and again, from memory, and takes frames to drop them."""
    return f"net_pcap0,rx_pcap={path},infinite_rx=1"


def run_testpmd(lab, path, flows, seconds, huge):
    """Frames a second that testpmd moves in macswap mode."""
    control, (worker,) = cores(1)
    words = ["dpdk-testpmd", "--in-memory" if huge else "--no-huge", "-m", str(MEMORY_MB), "--no-pci", "--no-telemetry", "--file-prefix", f"{lab.name}-testpmd", "--log-level", "error",
             "--lcores", f"0@{control},1@{worker}", "--vdev", device(path),
             "--", "-i", "--forward-mode=macswap", "--burst=64", "--mbcache=512", f"--total-num-mbufs={flows + 16384}", "--port-topology=loop", "--no-flush-rx"]
    # A terminal of its own: into a pipe testpmd would keep back what it says.
    ours, its = pty.openpty()
    process = lab.director.start(words, stdin=its, stdout=its, stderr=its)
    os.close(its)

    def until(pattern):
        text = ""
        while True:
            try:
                text += os.read(ours, 65536).decode(errors="replace").replace("\r", "")
            except OSError:
                raise RuntimeError("dpdk-testpmd ended:\n" + text) from None
            found = re.search(pattern, text, re.DOTALL)
            if found:
                return found

    def received():
        os.write(ours, b"show port stats 0\n")
        return int(until(r"RX-packets: (\d+).*#######\n")[1]), time.monotonic()

    try:
        until("testpmd> ")
        os.write(ours, b"start\n")
        time.sleep(0.5)
        first, began = received()
        time.sleep(seconds)
        last, ended = received()
        return (last - first) / (ended - began)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def config(path, flows, huge):
    """A director on the capture."""
    control, (worker,) = cores(1)
    members = "".join(f'[[service.real_server]]\naddress = "10.10.24.{21 + n}"\nmac = "02:00:00:00:00:{21 + n:02x}"\n' for n in range(SERVERS))
    return f"""[[port]]
name = "lan"
device = "{device(path)}"
addresses = ["10.10.24.10/24"]
[workers]
cores = [{worker}]
idle = "poll"
[control]
core = {control}
[eal]
no_huge = {"false" if huge else "true"}
memory = "{MEMORY_MB}M"
mbufs = {flows + 16384}
[limits]
connections = {max(flows * 2, 65536)}
half_open_percent = 100
[settings]
sloppy_tcp = 1
[[service]]
protocol = "tcp"
address = "{VIP}"
port = 80
scheduler = "rr"
{members}"""


def run_baton(lab, path, flows, seconds, huge):
    """Frames a second that the director forwards by direct routing, every one on an established connection."""
    with Director(lab.director, config(path, flows, huge)) as director:
        def forwarded():
            worker = director.api.get("workers")[0]
            return worker, time.monotonic()

        until = time.monotonic() + 20
        while forwarded()[0]["connections"] < flows:
            if time.monotonic() > until:
                raise RuntimeError(f"only {forwarded()[0]['connections']} of {flows} connections are there:\n{director.log()}")
            time.sleep(0.05)
        time.sleep(0.3)
        first, began = forwarded()
        time.sleep(seconds)
        last, ended = forwarded()
        moved = {name: count - first["verdicts"].get(name, 0) for name, count in last["verdicts"].items()}
        lost = {name: count for name, count in moved.items() if count and name != "forwarded"}
        if lost:
            raise RuntimeError(f"frames were not forwarded: {lost}")
        return moved["forwarded"] / (ended - began)


def compare(lab, flows, pairs, seconds, huge, progress):
    """Both in turn over one capture; the row of the first table."""
    path = lab.folder / f"flows-{flows}.pcap"
    write_capture(path, flows)
    testpmd, baton = [], []
    for pair in range(pairs):
        progress(f"{flows} flows, pair {pair + 1} of {pairs}")
        testpmd.append(run_testpmd(lab, path, flows, seconds, huge))
        baton.append(run_baton(lab, path, flows, seconds, huge))
    ratios = [b / t for b, t in zip(baton, testpmd)]
    best = max(testpmd)
    return {
        "flows": flows, "pairs": pairs,
        "macswap_mpps": best / 1e6, "macswap_ns": 1e9 / best, "macswap_spread": (best - min(testpmd)) / best,
        "baton_mpps": max(baton) / 1e6, "baton_ns": 1e9 / max(baton),
        "ratio": max(baton) / best, "ratio_median": statistics.median(ratios), "target": TARGET,
    }


def pipeline(connections, rounds, progress):
    """The rows of the second table."""
    progress("pipeline in process: building")
    command = ["cargo", "bench", "--quiet", "--locked", "-p", "dataplane", "--bench", "pipeline", "--"]
    command += ["--connections", connections, "--rounds", str(rounds), "--json"]
    out = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(out.stderr[-3000:])
    return [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]


def machine():
    """What was measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else os.uname().machine}, {os.cpu_count()} cores, Linux {os.uname().release}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--connections", default="65536,1000000")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="2 pairs of 1 s: a look, not a measurement")
    arguments = parser.parse_args()
    pairs = arguments.pairs or (2 if arguments.quick else 5)
    seconds = arguments.seconds or (1 if arguments.quick else 2)

    def progress(text):
        print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    # Each program holds its memory only while it runs, and connection tables take huge pages beside it.
    with Bare() as lab, huge_pages(MEMORY_MB + 512) as huge:
        rows = [compare(lab, flows, pairs, seconds, huge, progress) for flows in FLOWS]
    inside = pipeline(arguments.connections, 5 if arguments.quick else 30, progress)
    progress("")
    report = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "huge_pages": huge, "net_pcap": rows, "pipeline": inside}
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, {'huge pages' if huge else 'no huge pages'}, {report['date']}\n")
    print("64-byte TCP segments of established connections, direct routing, one worker, from an endless capture (net_pcap)")
    print(f"{'flows':>9} {'macswap Mpps':>14} {'ns':>7} {'baton Mpps':>12} {'ns':>7} {'ratio':>7} {'target':>7}")
    for row in rows:
        print(f"{row['flows']:>9} {row['macswap_mpps']:>14.2f} {row['macswap_ns']:>7.1f} {row['baton_mpps']:>12.2f} {row['baton_ns']:>7.1f}"
              f" {row['ratio']:>7.2f} {row['target']:>7.2f}")
        if row["macswap_spread"] > 0.15:
            print(f"{'':>9} macswap alone varied by {row['macswap_spread']:.0%}: the machine was not quiet, take the ratio with care")
    print("\nThe pipeline inside one process, over a plain MAC swap of the same frames")
    print(f"{'connections':>12} {'MAC swap ns':>12} {'pipeline ns':>12} {'added ns':>9} {'new connection ns':>18}")
    for row in inside:
        print(f"{row['connections']:>12} {row['mac_swap_ns']:>12.1f} {row['pipeline_ns']:>12.1f} {row['added_ns']:>9.1f} {row['new_connection_ns']:>18.1f}")


if __name__ == "__main__":
    main()
