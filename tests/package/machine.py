"""A Debian of its own to install the package in: a folder made by debootstrap, run and booted by systemd-nspawn, cut off from every network."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from lab.package import FOLDER, package

# What the package asks for is added to these. Made once; `rm -r target/debian/root` has it made anew.
PACKAGES = "systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps"


def next_version(folder):
    """The same package as 99.0, whose configuration has one line more."""
    tree = folder / "next"
    command(["dpkg-deb", "--raw-extract", package(), tree])
    control = tree / "DEBIAN" / "control"
    control.write_text("".join("Version: 99.0\n" if line.startswith("Version:") else line for line in control.read_text().splitlines(True)))
    with (tree / "etc" / "baton" / "baton.toml").open("a") as file:
        file.write("# new in 99.0\n")
    command(["dpkg-deb", "--root-owner-group", "--build", "-Znone", tree, folder / "next.deb"])
    return folder / "next.deb"


def prepare():
    """Debian with all that the package depends on, without the package."""
    root = FOLDER / "root"
    depends = command(["dpkg-deb", "--field", package(), "Depends"]).split(",")
    wanted = [alternatives.split("|")[0].split()[0] for alternatives in depends]
    made = root / "made-for"
    if made.is_file() and made.read_text() == " ".join(wanted):
        return root
    shutil.rmtree(root, ignore_errors=True)
    command(["debootstrap", "--variant=minbase", f"--include={PACKAGES},{','.join(wanted)}", "bookworm", root], timeout=1200)
    made.write_text(" ".join(wanted))
    return root


def command(words, timeout=120):
    """Runs a command on this machine; returns what it printed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{words} ended with status {done.returncode} and said: {done.stdout}{done.stderr}"
    return done.stdout


class Machine:
    """A copy of that Debian; a context manager. `run` works in it with and without `boot`."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="machine-", dir=FOLDER))
        self.root = self.folder / "root"
        self.nspawn = None
        command(["cp", "-a", "--reflink=auto", prepare(), self.root])
        for file in (package(), next_version(self.folder)):
            shutil.copy(file, self.root / ("baton.deb" if file == package() else "next.deb"))
        return self

    def __exit__(self, *error):
        if self.nspawn is not None:
            # systemd's "halt at once", which nspawn passes on.
            self.nspawn.terminate()
            try:
                self.nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _nspawn(self, *more):
        return ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--resolv-conf=off", "--timezone=off",
                f"--machine=baton-{self.folder.stat().st_ino}", "--bind=/dev/net/tun", "--bind-ro=/sys/module", "--capability=CAP_IPC_LOCK",
                "--directory", str(self.root), *more]

    def boot(self):
        """Starts it, with a cable d0-p0 for the director, and waits until it is up."""
        self.nspawn = subprocess.Popen(self._nspawn("--boot"), stdin=subprocess.DEVNULL, stdout=(self.folder / "console").open("wb"), stderr=subprocess.STDOUT)
        self.wait("systemctl is-system-running | grep -E 'running|degraded'", 90)
        self.run("ip link add d0 type veth peer name p0 && ip link set d0 up && ip link set p0 up")

    def run(self, line, check=True):
        """A line for the shell in it; returns what it printed."""
        if self.nspawn is None:
            words = self._nspawn("--as-pid2", "--pipe", "/bin/sh", "-c", line)
        else:
            children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
            words = ["nsenter", "--target", children[0], "--all", "/usr/bin/env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                     "DEBIAN_FRONTEND=noninteractive", "/bin/sh", "-c", line]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0 or not check, f"{line!r} ended with status {done.returncode} and said: {done.stdout}{done.stderr}"
        return done.stdout

    def wait(self, line, longest=60):
        """Waits until a line for the shell ends with status 0; returns what it printed."""
        until = time.monotonic() + longest
        while True:
            try:
                return self.run(line)
            except (AssertionError, IndexError) as why:
                if time.monotonic() > until:
                    console = (self.folder / "console").read_text(errors="replace") if (self.folder / "console").exists() else ""
                    raise AssertionError(f"{why}\n{console[-2000:]}") from None
            time.sleep(0.2)
