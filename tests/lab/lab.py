"""The life of a lab: its folder, its namespaces and processes, and their end, however the program ends."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from .host import Host, command

FOLDERS = Path("/tmp")
PREFIX = "baton-"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LabError(RuntimeError):
    """The lab could not be set up as it must be; the message says what is missing."""


class Lab:
    """A context manager: whatever is made inside ends with it, also after Ctrl-C, SIGTERM or an exception."""

    def __init__(self):
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: run this with sudo")
        self.name = PREFIX + secrets.token_hex(3)
        self.folder = FOLDERS / self.name
        self.bin = self.folder / "bin"
        self.hosts = {}
        self.processes = []
        self.kept = False
        self._handlers = {}

    def __enter__(self):
        sweep()
        self.bin.mkdir(parents=True)
        self._record()
        if threading.current_thread() is threading.main_thread():
            for number in ENDINGS:
                self._handlers[number] = signal.signal(number, _raise_exit)
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error):
        if self.kept:
            self._give_back_signals()
        else:
            self.close()

    def build(self):
        """Makes hosts and networks; a topology overrides it."""

    def host(self, name):
        """A new host."""
        self.hosts[name] = Host(self, name)
        self._record()
        return self.hosts[name]

    def adopt(self, process):
        """Ends this process (a Popen) with the lab."""
        self.processes.append(process)
        self._record()

    def link(self, one, device, other, other_device, mac=None, other_mac=None):
        """A cable: a veth pair between two hosts, both ends up, offloads off."""
        words = ["ip", "link", "add", device, "netns", one.namespace]
        words += ["address", mac] if mac else []
        words += ["type", "veth", "peer", "name", other_device]
        words += ["address", other_mac] if other_mac else []
        command([*words, "netns", other.namespace])
        for host, end in ((one, device), (other, other_device)):
            host.plain(end)
            host.ip(f"link set {end} up")

    def keep(self):
        """Leaves everything running when the context ends; `end(name)` ends it."""
        self.kept = True
        self._record()

    def close(self):
        """Ends processes, then namespaces, then the folder. Signals wait until that is done."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            _end_processes(self.processes)
            for host in self.hosts.values():
                _delete_namespace(host.namespace)
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self._give_back_signals()

    def _give_back_signals(self):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _record(self):
        """Writes down what is ours, so that another program can end it."""
        running = [process.pid for process in self.processes if process.poll() is None]
        record = {
            "owner": _identity(os.getpid()), "kept": self.kept, "namespaces": [host.namespace for host in self.hosts.values()],
            "processes": [_identity(pid) for pid in running],
        }
        temporary = self.folder / "lab.json.new"
        temporary.write_text(json.dumps(record))
        temporary.rename(self.folder / "lab.json")


def end(name):
    """Ends a lab that another program made and kept."""
    folder = FOLDERS / name
    if not name.startswith(PREFIX) or "/" in name or not (folder / "lab.json").is_file():
        raise LabError(f"there is no lab named {name}: running are {', '.join(running()) or 'none'}")
    record = json.loads((folder / "lab.json").read_text())
    alive = [entry["pid"] for entry in record["processes"] if _is_alive(entry)]
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
        for pid in alive:
            _signal(pid, number)
        until = time.monotonic() + patience
        while alive and time.monotonic() < until:
            time.sleep(0.02)
            alive = [entry["pid"] for entry in record["processes"] if entry["pid"] in alive and _is_alive(entry)]
    for namespace in record["namespaces"]:
        _delete_namespace(namespace)
    shutil.rmtree(folder, ignore_errors=True)


def running():
    """The names of the labs on this machine."""
    return sorted(path.parent.name for path in FOLDERS.glob(PREFIX + "*/lab.json"))


def sweep():
    """Ends labs whose program was killed before it could clean up."""
    for name in running():
        try:
            record = json.loads((FOLDERS / name / "lab.json").read_text())
            if not record["kept"] and not _is_alive(record["owner"]):
                end(name)
        except (OSError, ValueError, LabError):
            continue


def _raise_exit(number, _frame):
    raise SystemExit(128 + number)


def _end_processes(processes):
    alive = [process for process in processes if process.poll() is None]
    for process in alive:
        _signal(process.pid, signal.SIGTERM)
    until = time.monotonic() + 5.0
    for process in alive:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _delete_namespace(name):
    if Path(f"/run/netns/{name}").exists():
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _identity(pid):
    """A process, told apart from a later one with the same number."""
    return {"pid": pid, "started": started_at(pid)}


def _is_alive(entry):
    started = started_at(entry["pid"])
    return started is not None and started == entry["started"]


def started_at(pid):
    """When a process was started, in the kernel's ticks; None when it has ended, reaped or not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
