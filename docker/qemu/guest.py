"""A machine with an IOMMU, emulated by QEMU without KVM: a disk that `docker/qemu/image` made, NICs on TAPs of a namespace.

Commands run in it by QEMU's guest agent, so that it needs no network but the one under test. Whatever it writes to its disk is forgotten with it.
"""

import base64
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

# No emulated processor is fast, and others use this machine too: outcomes are waited for as long as this.
PATIENCE = 420
# A kernel that is interrupted while it measures its clocks, in its first second, has them go wrong or comes up no further: then the guest is reset.
BOOTS = 3


@dataclass
class Nic:
    """A NIC of the guest: QEMU's name of the model with its properties, PCI bus, MAC, the TAP that is its cable and that one's queues."""

    model: str
    bus: int
    mac: str
    tap: str
    queues: int = 1

    @property
    def pci(self):
        """Its address in the guest."""
        return f"0000:{self.bus:02x}:00.0"

    @property
    def words(self):
        """What QEMU is told of it; its name there is the TAP's."""
        queues = f",queues={self.queues}" if self.queues > 1 else ""
        return ["-netdev", f"tap,id=cable-{self.tap},ifname={self.tap},script=no,downscript=no{queues}",
                "-device", f"{self.model},id={self.tap},netdev=cable-{self.tap},mac={self.mac},bus=slot{self.bus},romfile="]


class GuestError(AssertionError):
    """A command in the guest failed, or the guest itself did."""


class Guest:
    """One machine, from `begin` to `end`.

    `start` starts a process (words, log file) in the namespace of its TAPs; `say` is told when it has to be reset.
    """

    def __init__(self, name, disk, folder, nics, start, say, share=None, cpus=3, memory=3072):
        self.name = name
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.console_path = self.folder / "console"
        self.nics = nics
        self._start = start
        self._say = say
        self.process = None
        self._before_boot = 0
        self._agent = Channel(self.folder / "agent")
        self._monitor = Channel(self.folder / "monitor")
        self.words = [
            "qemu-system-x86_64", "-name", name, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", cpus, "-m", memory,
            "-nodefaults", "-display", "none", "-serial", f"file:{self.console_path}",
            "-device", "intel-iommu,intremap=on,caching-mode=on",
            "-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on", "-device", "virtio-blk-pci,drive=disk,bootindex=1",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self._agent.path},server=on,wait=off", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-qmp", f"unix:{self._monitor.path},server=on,wait=off",
        ]
        if share:
            self.words += ["-virtfs", f"local,path={share},mount_tag=share,security_model=none,readonly=on"]
        # The firmware numbers the buses behind these in turn.
        for bus in range(1, max((nic.bus for nic in nics), default=0) + 1):
            self.words += ["-device", f"pcie-root-port,id=slot{bus},chassis={bus},addr={0x10 + bus:#x}"]
        for nic in nics:
            self.words += nic.words

    def begin(self):
        """Switches it on; it boots meanwhile."""
        self.console_path.unlink(missing_ok=True)
        self.process = self._start(self.words, log=self.folder / "qemu.log")

    def end(self):
        """Switches it off, as a power cut does."""
        self._agent.close()
        self._monitor.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def wait_until_up(self, not_boot=""):
        """Waits until systemd has started what it starts, in another boot than the one of this id; resets a guest that does not get there."""
        for left in reversed(range(BOOTS)):
            try:
                self.wait(f"test \"$(cat /proc/sys/kernel/random/boot_id)\" != '{not_boot}' && {{ systemctl is-system-running --wait >/dev/null; "
                          "systemctl is-system-running | grep -qE 'running|degraded'; }")
                self._check_clock()
                return
            except GuestError as why:
                if left == 0 or self.process.poll() is not None:
                    raise
                self._say(f"guest {self.name} is reset, for it did not boot: {str(why).splitlines()[0]}")
                self._before_boot = len(self.console())
                self._agent.close()
                self._monitor.call("system_reset", {}, 30)

    def _check_clock(self):
        """Compares the guest's clock with QEMU's, which it was set by when it booted."""
        ours, theirs, uptime = map(float, self.run("echo $(date +%s) $(cat /sys/class/rtc/rtc0/since_epoch) $(cut -d ' ' -f 1 /proc/uptime)").split())
        if abs(ours - theirs) > 2 + uptime / 10:
            raise GuestError(f"its clock is {ours - theirs:+.0f} s off, {uptime:.0f} s after it was set\n{self._story()}")

    def run(self, line, check=True, timeout=PATIENCE):
        """A line for the shell in the guest, as root; returns what it printed on its standard output."""
        status, out, err = self.try_run(line, timeout)
        if check and status:
            raise GuestError(f"in guest {self.name}: {line!r} ended with status {status} and said: {out}{err}")
        return out

    def try_run(self, line, timeout=PATIENCE):
        """As `run`: (exit status, standard output, standard error)."""
        until = time.monotonic() + timeout
        pid = self._call("guest-exec", {"path": "/bin/sh", "arg": ["-c", line], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"],
                                        "capture-output": True}, timeout)["pid"]
        pause = 0.02
        while True:
            done = self._call("guest-exec-status", {"pid": pid}, timeout)
            if done["exited"]:
                text = [base64.b64decode(done.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data")]
                return done.get("exitcode", 128 + done.get("signal", 0)), *text
            if time.monotonic() > until:
                raise GuestError(f"in guest {self.name}: {line!r} has not ended after {timeout} s")
            time.sleep(pause)
            pause = min(0.3, pause * 1.5)

    def wait(self, line, longest=PATIENCE):
        """Waits until a line for the shell ends with status 0; returns what it printed."""
        until = time.monotonic() + longest
        while True:
            try:
                return self.run(line, timeout=max(1, until - time.monotonic()))
            except (GuestError, OSError) as why:
                panic = "Kernel panic" in self.console()[self._before_boot:]
                if panic or self.process.poll() is not None or time.monotonic() > until:
                    raise GuestError(f"{'its kernel panicked; ' if panic else ''}{why}\n{self._story()}") from None
            time.sleep(0.5)

    def reboot(self):
        """`systemctl reboot`; returns when everything is up again."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self._before_boot = len(self.console())
        self.run("systemctl reboot", check=False)
        self.wait_until_up(not_boot=before.strip())

    def set_link(self, nic, up):
        """Plugs a NIC's cable in, or pulls it."""
        self._monitor.call("set_link", {"name": nic.tap, "up": up}, 30)

    def console(self):
        """What it wrote on its serial line so far."""
        return self.console_path.read_text(errors="replace") if self.console_path.exists() else ""

    def _story(self):
        """How this boot began and what was said last, by the guest and by QEMU: the kernel's calibrations come first, what it dies of last."""
        console = self.console()[self._before_boot:]
        return f"{console[:3000]}\n...\n{console[3000:][-3000:]}\n{(self.folder / 'qemu.log').read_text(errors='replace')}"

    def _call(self, command, arguments, timeout):
        try:
            return self._agent.call(command, arguments, min(timeout, 30))
        except (OSError, ValueError) as why:
            self._agent.close()
            raise GuestError(f"the agent of guest {self.name} does not answer: {why}") from None


class Channel:
    """Questions and answers in JSON, a line each, over a socket that QEMU made: its monitor, or the guest's agent."""

    def __init__(self, path):
        self.path = Path(path)
        self._socket = None
        self._left = b""
        self._number = 0

    def call(self, command, arguments, timeout):
        """The answer; ValueError for a refusal, OSError when there is none."""
        self._number += 1
        if self._socket is None:
            self._connect(timeout)
        self._socket.settimeout(timeout)
        self._send(command, arguments)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            answer = self._line()
            if "error" in answer:
                raise ValueError(answer["error"].get("desc", answer["error"]))
            if "return" in answer:
                return answer["return"]
        raise TimeoutError(f"no answer to {command}")

    def close(self):
        """The next call connects anew."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._left = None, b""

    def _connect(self, timeout):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(str(self.path))
        self._socket, self._left = connection, b""
        if self.path.name == "monitor":
            self._line()
            self._send("qmp_capabilities", {})
            self._line()
            return
        # What an earlier, unfinished exchange left behind in the agent ends with its answer to this.
        connection.settimeout(min(timeout, 3))
        self._send("guest-sync", {"id": self._number})
        while self._line().get("return") != self._number:
            pass

    def _send(self, command, arguments):
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")

    def _line(self):
        while b"\n" not in self._left:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return json.loads(line.replace(b"\xff", b""))
