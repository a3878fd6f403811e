"""The two programs that are compared, each of which can be stopped while the other one has the core."""

import signal
import time

from lab import testpmd
from lab.director import Director, cores
from lab.topology import VIP

SERVERS = 4
# How long a program runs after it was stopped before its frames are counted.
WARM = 0.1


class Paused:
    """A process that runs only inside `with`."""

    def __init__(self, process):
        self.process = process
        process.send_signal(signal.SIGSTOP)

    def __enter__(self):
        self.process.send_signal(signal.SIGCONT)

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)


def rate(count, seconds):
    """Frames a second that `count` counts, over so many seconds."""
    time.sleep(WARM)
    first, began = count()
    time.sleep(seconds)
    last, ended = count()
    return (last - first) / (ended - began)


class Testpmd(testpmd.Testpmd):
    """dpdk-testpmd in macswap mode on one core; it is stopped between calls of `rate`."""

    def __init__(self, lab, device, mbufs, memory_mb, huge):
        eal = ["--in-memory" if huge else "--no-huge", "-m", str(memory_mb), "--file-prefix", f"{lab.name}-testpmd"]
        options = ["--forward-mode=macswap", "--burst=64", "--mbcache=512", f"--total-num-mbufs={mbufs}", "--port-topology=loop", "--no-flush-rx"]
        super().__init__(lab.director, device, eal, options)
        self.start()
        self.paused = Paused(self.process)

    def _received(self):
        received, _, when = self.packets()
        return received, when

    def rate(self, seconds):
        """Frames a second that it moves."""
        with self.paused:
            return rate(self._received, seconds)


class Baton:
    """The director with one service, and traffic of its port's own. A context manager; it is stopped between `with baton.paused`."""

    def __init__(self, host, text):
        self.director = Director(host, text)

    def __enter__(self):
        self.director.start()
        self.paused = Paused(self.director.process)
        return self

    def __exit__(self, *error):
        if self.director.process.poll() is None:
            self.director.process.send_signal(signal.SIGCONT)
        self.director.__exit__(*error)

    @property
    def api(self):
        """Its REST API."""
        return self.director.api

    def await_connections(self, connections):
        """Runs it until it has so many."""
        with self.paused:
            until = time.monotonic() + 30
            while (there := sum(worker["connections"] for worker in self.api.get("workers"))) < connections:
                if time.monotonic() > until:
                    raise RuntimeError(f"only {there} of {connections} connections are there; frames: {self.verdicts()}")
                time.sleep(0.05)

    def verdicts(self):
        """What became of all frames so far."""
        total = {}
        for worker in self.api.get("workers"):
            for name, count in worker["verdicts"].items():
                total[name] = total.get(name, 0) + count
        return total

    def forwarded(self):
        """Frames forwarded so far, and when that was."""
        return self.verdicts().get("forwarded", 0), time.monotonic()

    def rate(self, seconds):
        """Frames a second that it forwards; all others are an error."""
        with self.paused:
            before = self.verdicts()
            forwarded = rate(self.forwarded, seconds)
            assert_forwarded(before, self.verdicts())
            return forwarded


def lost(before, after):
    """Verdicts other than forwarded, by name."""
    moved = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in moved.items() if count and name != "forwarded"}


def assert_forwarded(before, after):
    """Every frame between two looks was forwarded."""
    if other := lost(before, after):
        raise RuntimeError(f"frames were not forwarded: {other}")


def config(ports, *, connections, mbufs, memory_mb, huge, workers=1, services=None, more=""):
    """A baton.toml with these devices, the first of which has the real servers' network."""
    control, used = cores(workers)
    addresses = ["10.10.24.10/24", "10.10.25.10/24"]
    port = "".join(f'[[port]]\nname = "lan{n}"\ndevice = "{device}"\naddresses = ["{addresses[n]}"]\n' for n, device in enumerate(ports))
    if services is None:
        members = "".join(f'[[service.real_server]]\naddress = "10.10.24.{21 + n}"\nmac = "02:00:00:00:00:{21 + n:02x}"\n' for n in range(SERVERS))
        services = f'[[service]]\nprotocol = "tcp"\naddress = "{VIP}"\nport = 80\nscheduler = "rr"\n{members}'
    return f"""{port}
[workers]
cores = {list(used)}
idle = "poll"
[control]
core = {control}
{more}
[eal]
no_huge = {"false" if huge else "true"}
memory = "{memory_mb}M"
mbufs = {mbufs}
[limits]
connections = {connections}
half_open_percent = 100
[settings]
sloppy_tcp = 1
{services}"""
