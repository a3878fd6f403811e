"""The director under test: the real binary, started as a user starts it."""

import os
import signal
import subprocess
import time
from pathlib import Path

from .api import Api, verdicts
from .lab import LabError
from .topology import DIP, DIP6, REPOSITORY, ROUTER, ROUTER6

NAMES = ("ipvsadm", "ipvsadm-save", "ipvsadm-restore")


def binary():
    """The program under test: target/release/baton, or what the environment's BATON names."""
    return Path(os.environ.get("BATON", REPOSITORY / "target" / "release" / "baton")).resolve()


def ready_binary(lab):
    """Puts `baton`, and the names of ipvsadm, on the PATH of the lab's hosts."""
    if not binary().is_file():
        raise LabError(f"{binary()} is missing: build it with `make build` (or name another one in BATON)")
    for name in ("baton", *NAMES):
        link = lab.bin / name
        if not link.is_symlink():
            link.symlink_to(binary())


def cores(workers):
    """(control core, worker cores) on this machine: workers share the control core only where there are too few."""
    allowed = sorted(os.sched_getaffinity(0))
    if workers > len(allowed):
        raise LabError(f"{workers} workers need as many CPU cores; this machine lets us use {len(allowed)}")
    return allowed[0], allowed[-workers:]


def config_text(device, *, workers=1, ttl="preserve", addresses=(f"{DIP}/24", f"{DIP6}/64"), gateways=(ROUTER, ROUTER6), more=""):
    """A baton.toml: one port named lan on `device`, no hugepages. `more` is added as it is."""
    control, used = cores(workers)
    if device.startswith("net_af_packet"):
        # On a busy machine the default of 512 frames is soon short of room: then the kernel drops, or moves flows to another worker's queue.
        device += ",framecnt=4096"
        if workers > 1 and "qpairs=" not in device:
            device += f",qpairs={workers}"

    def texts(values):
        return "[" + ", ".join(f'"{value}"' for value in values) + "]"

    return f"""[[port]]
name = "lan"
device = "{device}"
addresses = {texts(addresses)}
gateways = {texts(gateways)}

[workers]
cores = {list(used)}

[control]
core = {control}

[eal]
no_huge = true
memory = "512M"

[forwarding]
ttl = "{ttl}"

[limits]
connections = 262144

{more}"""


class Director:
    """A director on a lab's host. A context manager: `with Director(host, text) as director:` starts it and ends it."""

    def __init__(self, host, config, started=None):
        self.host = host
        self.config_path = host.folder / "baton.toml"
        self.log_path = host.folder / "baton.log"
        self.api = Api(host.folder / "run" / "baton" / "baton.sock")
        self.process = None
        self.started = started
        self.words = ["baton", "run", "--config", self.config_path]
        self.env = {}
        ready_binary(host.lab)
        self.config_path.write_text(config)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def start(self, timeout=30.0):
        """Starts it and waits until it is ready; what it said is in the error when it ends instead."""
        self.process = self.host.start(self.words, log=self.log_path, env=self.env)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the director ended with status {self.process.returncode} instead of starting:\n{self.log()}")
            if self.is_ready():
                if self.started:
                    self.started()
                return self
            time.sleep(0.02)
        raise AssertionError(f"the director is not ready after {timeout} s:\n{self.log()}")

    def is_ready(self):
        """Whether /readyz says so."""
        try:
            return self.api.raw("GET", "/readyz", timeout=2)[0] == 200
        except OSError:
            return False

    def fails_to_start(self, timeout=20.0):
        """Starts it where it must refuse; returns (status, what it said)."""
        done = self.host.run(["baton", "run", "--config", self.config_path], check=False, timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def stop(self, timeout=10.0):
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self):
        """SIGKILL, as if the machine had lost it."""
        return self._end(signal.SIGKILL, 5.0)

    def _end(self, number, timeout):
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the director did not end within {timeout} s after signal {number}:\n{self.log()}") from None

    def log(self):
        """What it said so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def memory_kib(self):
        """Its resident memory in KiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise KeyError("VmRSS")

    # -- commands as a user types them ------------------------------------------------------------------------------------------------------

    def run(self, line, **more):
        """A line for the shell on the director; returns what it printed on its standard output."""
        return self.host.run(line, **more).stdout

    def ipvsadm(self, *lines):
        """Runs lines of ipvsadm's (without its name); returns what the last one printed."""
        said = ""
        for line in lines:
            said = self.run(f"ipvsadm {line}")
        return said

    def clear(self):
        """Forgets services, their counters (a real server that comes back finds its own again), mark rules, connections and settings."""
        self.api.post("services/zero")
        self.api.delete("services")
        self.api.delete("marks")
        self.api.delete("connections")
        self.api.delete("settings")

    # -- accounts ---------------------------------------------------------------------------------------------------------------------------

    def counting(self, frames):
        """A context in which the workers receive exactly `frames` frames; its `moved` then says which counters moved, and by how much."""
        return Counting(self.api, frames)


class Counting:
    """Counters before and after; see Director.counting."""

    def __init__(self, api, frames):
        self.api = api
        self.frames = frames
        self.moved = {}

    def __enter__(self):
        self.before = self.api.settled_counters()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            return
        after = self.api.settled_counters(self.before.get("received", 0) + self.frames)
        names = set(after) | set(self.before)
        self.moved = {name: after.get(name, 0) - self.before.get(name, 0) for name in names if after.get(name, 0) != self.before.get(name, 0)}
        received, judged = self.moved.get("received", 0), sum(verdicts(self.moved).values())
        assert received == self.frames, f"{self.frames} frames were sent, {received} received: {self.moved}"
        assert judged == received, f"{received} frames received but {judged} verdicts: {self.moved}"
