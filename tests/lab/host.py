"""One host of a lab: a network namespace, with a /run and a /var/lib of its own, so that hosts share files no more than machines do."""

import contextlib
import ctypes
import os
import shlex
import socket
import stat
import subprocess
from pathlib import Path

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(namespace):
    """Puts the calling thread into a network namespace; sockets made meanwhile stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")
        try:
            yield
        finally:
            if _libc.setns(home, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot return to the network namespace that we came from")
    finally:
        os.close(home)
        os.close(there)


class Host:
    """A host with a short name (`director`) and a namespace (`baton-1f3c-director`)."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.namespace = f"{lab.name}-{name}"
        self.folder = lab.folder / name
        self.enter = self.folder / "enter"
        self._make()

    def _make(self):
        for sub in ("run", "lib"):
            (self.folder / sub).mkdir(parents=True)
        command(["ip", "netns", "add", self.namespace])
        # The mounts are made in the mount namespace that `ip netns exec` opens for this one command: nobody else sees them.
        script = f"""#!/bin/sh
# A command, or a shell, on the lab's host {self.name}:  {self.enter} [COMMAND ...]
[ $# -gt 0 ] || set -- "${{SHELL:-/bin/sh}}"
exec ip netns exec {self.namespace} /bin/sh -c '
    mount --bind {shlex.quote(str(self.folder / "run"))} /run && mount --bind {shlex.quote(str(self.folder / "lib"))} /var/lib || exit 125
    PATH={shlex.quote(str(self.lab.bin))}:$PATH; export PATH
    exec "$@"' {self.name} "$@"
"""
        self.enter.write_text(script)
        self.enter.chmod(self.enter.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP)
        command(["ip", "-n", self.namespace, "link", "set", "lo", "up"])
        for key in ("all", "default"):
            self.sysctl(f"net.ipv6.conf.{key}.disable_ipv6", 0)
            self.sysctl(f"net.ipv6.conf.{key}.accept_ra", 0)
            self.sysctl(f"net.ipv6.conf.{key}.accept_dad", 0)
            self.sysctl(f"net.ipv4.conf.{key}.rp_filter", 0)

    # -- commands ---------------------------------------------------------------------------------------------------------------------------

    def run(self, words, *, check=True, timeout=60, stdin=None, env=None):
        """Runs a command here (a list of words, or a line for the shell); returns its CompletedProcess with text."""
        words = ["/bin/sh", "-c", words] if isinstance(words, str) else [str(word) for word in words]
        done = subprocess.run(
            [str(self.enter), *words], input=stdin, capture_output=True, text=True, timeout=timeout, env=_environment(env), check=False,
            stdin=subprocess.DEVNULL if stdin is None else None)
        if check and done.returncode:
            raise CommandFailed(self.name, words, done)
        return done

    def start(self, words, *, log=None, env=None, **more):
        """Starts a process here that ends with the lab at the latest; returns its Popen. `log` is a path for all that it prints."""
        out = open(log, "ab") if log else subprocess.DEVNULL
        try:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT if log else subprocess.DEVNULL, **more}
            process = subprocess.Popen([str(self.enter), *map(str, words)], start_new_session=True, env=_environment(env), **options)
        finally:
            if log:
                out.close()
        self.lab.adopt(process)
        return process

    # -- the network ------------------------------------------------------------------------------------------------------------------------

    def ip(self, line):
        """`ip` with the words of `line`, on this host; returns what it printed."""
        return command(["ip", "-n", self.namespace, *line.split()])

    def sysctl(self, name, value):
        """Sets a sysctl of this namespace."""
        with inside(self.namespace):
            Path("/proc/sys/" + name.replace(".", "/")).write_text(f"{value}\n")

    def read_sysctl(self, name):
        """A sysctl of this namespace."""
        with inside(self.namespace):
            return Path("/proc/sys/" + name.replace(".", "/")).read_text().strip()

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        """A socket of this host, for use by this very program."""
        with inside(self.namespace):
            return socket.socket(family, kind, protocol)

    def plain(self, device):
        """Makes a veth carry finished frames of the wire's size: checksums computed, nothing merged."""
        command(["ip", "netns", "exec", self.namespace, "ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])

    def counters(self, device):
        """The device's counters: {rx_packets, rx_bytes, tx_packets, tx_bytes, ...}."""
        with inside(self.namespace):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        for line in lines:
            name, _, numbers = line.strip().partition(":")
            if name == device:
                n = [int(word) for word in numbers.split()]
                return {"rx_bytes": n[0], "rx_packets": n[1], "rx_dropped": n[3], "tx_bytes": n[8], "tx_packets": n[9], "tx_dropped": n[11]}
        raise KeyError(f"{self.name} has no device {device}")


class CommandFailed(AssertionError):
    """A command of the lab ended with another status than 0."""

    def __init__(self, where, words, done):
        said = (done.stdout + done.stderr).strip() or "(nothing)"
        super().__init__(f"on {where}: {shlex.join(words)}\n  ended with status {done.returncode} and said: {said}")
        self.status = done.returncode


def command(words, timeout=30):
    """Runs a command outside of any host; returns what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise CommandFailed("this machine", words, done)
    return done.stdout


def _environment(more):
    """The caller's environment, without what would send a host's commands to another director."""
    kept = {name: value for name, value in os.environ.items() if name not in ("BATON_API", "RUST_LOG")}
    kept["LC_ALL"] = "C.UTF-8"
    return {**kept, **(more or {})}
