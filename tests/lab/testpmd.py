"""dpdk-testpmd, told what to do over its own prompt."""

import os
import pty
import re
import time

from .director import cores


class Testpmd:
    """dpdk-testpmd on one port of its own. A context manager; what it forwards is started with `start`."""

    def __init__(self, host, device, eal, options, core=None):
        control, (worker,) = cores(1)
        self.process = None
        # A terminal of its own: into a pipe testpmd would keep back what it says.
        self.terminal, its = pty.openpty()
        words = [
            "dpdk-testpmd", *eal, "--no-pci", "--no-telemetry", "--log-level", "error", "--lcores", f"0@{control},1@{worker if core is None else core}",
            "--vdev", device, "--", "-i", *options,
        ]
        try:
            self.process = host.start(words, stdin=its, stdout=its, stderr=its)
            self.until("testpmd> ")
        except BaseException:
            self.close()
            raise
        finally:
            os.close(its)

    def until(self, pattern):
        """Waits until it has said what the pattern finds; returns the match."""
        text = ""
        while True:
            try:
                text += os.read(self.terminal, 65536).decode(errors="replace").replace("\r", "")
            except OSError:
                raise RuntimeError("dpdk-testpmd ended:\n" + text) from None
            found = re.search(pattern, text, re.DOTALL)
            if found:
                return found

    def say(self, line, pattern):
        """Types a command; returns the match of what it says to it."""
        os.write(self.terminal, line.encode() + b"\n")
        return self.until(pattern)

    def start(self):
        """Begins to forward, generate or receive."""
        os.write(self.terminal, b"start\n")
        self.packets()

    def stop(self):
        """Ends that; what is counted stays."""
        self.say("stop", r"Done\.\n")

    def packets(self):
        """(received, sent, when this was)."""
        found = self.say("show port stats 0", r"RX-packets: (\d+).*TX-packets: (\d+).*#######\n")
        return int(found[1]), int(found[2]), time.monotonic()

    def close(self):
        """Ends it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        os.close(self.terminal)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
