"""The lab itself: it must leave nothing behind, or no other test here can be believed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import Classic, Lab, fetch
from lab.lab import LabError, end, running, started_at

TESTS = Path(__file__).resolve().parents[1]

HOLDS_A_LAB = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lab import Classic
with Classic(servers=1) as lab:
    lab.servers[0].start(["sleep", "1000"])
    print(lab.name, lab.processes[-1].pid, flush=True)
    if sys.argv[2] == "keep":
        lab.keep()
    elif sys.argv[2] == "fail":
        raise RuntimeError("as a test does")
    else:
        time.sleep(60)
"""


def remains(name, pid):
    """What is left of a lab."""
    namespaces = [path.name for path in Path("/run/netns").glob(name + "-*")]
    return namespaces + [str(path) for path in Path("/tmp").glob(name)] + ([f"process {pid}"] if started_at(pid) else [])


def hold(how):
    """Another program with a lab of its own: (its Popen, the lab's name, the pid of a process in it)."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDS_A_LAB, str(TESTS), how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    name, pid = holder.stdout.readline().split()
    return holder, name, int(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_lab_leaves_nothing_behind_after_a_signal(number):
    holder, name, pid = hold("wait")
    assert remains(name, pid)
    holder.send_signal(number)
    assert holder.wait(20) == 128 + number
    assert remains(name, pid) == []


def test_lab_leaves_nothing_behind_after_an_exception():
    holder, name, pid = hold("fail")
    assert holder.wait(20) == 1
    assert remains(name, pid) == []


def test_lab_of_a_killed_program_is_swept_by_the_next():
    holder, name, pid = hold("wait")
    holder.kill()
    holder.wait()
    assert remains(name, pid)
    with Lab():
        pass
    assert remains(name, pid) == []


def test_kept_lab_runs_on_until_it_is_ended():
    holder, name, pid = hold("keep")
    assert holder.wait(20) == 0
    with Lab():
        assert name in running() and started_at(pid)
    end(name)
    time.sleep(0.05)
    assert remains(name, pid) == []
    with pytest.raises(LabError, match=name):
        end(name)


def test_labs_side_by_side_do_not_meet():
    with Classic(servers=1) as one, Classic(servers=1) as other:
        one.serve()
        other.serve()
        assert one.name != other.name
        assert fetch(one.client, "10.10.24.21")[0] == "rs1"
        for lab in (one, other):
            (lab.servers[0].folder / "run" / "mark").write_text(lab.name)
            assert lab.servers[0].run("cat /run/mark").stdout == lab.name
    assert not Path("/run/mark").exists() and os.path.isdir("/run/netns")
