"""What is measured on, and its huge pages."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from lab.topology import REPOSITORY

HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def description():
    """The machine, kernel, date and commit."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / (1 << 20)

    def git(*words):
        # Sources that were unpacked rather than cloned need no git.
        if not shutil.which("git"):
            return ""
        done = subprocess.run(["git", "-c", f"safe.directory={REPOSITORY}", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "machine": f"{model[1].strip() if model else os.uname().machine}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB",
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": os.uname().release, "date": time.strftime("%Y-%m-%d"), "commit": commit + changed, "load_before": os.getloadavg()[0],
    }


class HugePages:
    """Takes huge pages of 2 MiB while a part runs and gives them back.

    Without them the misses of address translation, not the programs, are what is measured.
    """

    def __init__(self):
        self.missed = []

    @contextlib.contextmanager
    def taken(self, part, megabytes):
        """`megabytes` of them; yields whether the kernel had them to give."""
        count = HUGE_PAGES / "nr_hugepages"
        try:
            before = int(count.read_text())
        except OSError:
            before = None
        enough = before is not None and (megabytes == 0 or _take(count, before, megabytes))
        if not enough:
            self.missed.append(part)
        try:
            yield enough
        finally:
            if before is not None:
                with contextlib.suppress(OSError):
                    count.write_text(str(before))


def _take(count, before, megabytes):
    def free():
        return int((HUGE_PAGES / "free_hugepages").read_text()) * 2

    try:
        count.write_text(str(before + megabytes // 2))
        if free() < megabytes:
            # What files left in memory lies between the pages that are free.
            Path("/proc/sys/vm/drop_caches").write_text("3")
            Path("/proc/sys/vm/compact_memory").write_text("1")
            count.write_text(str(before + megabytes // 2))
        return free() >= megabytes
    except OSError:
        return False
