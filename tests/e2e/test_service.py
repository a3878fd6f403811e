"""The director as systemd runs it: as a user of its own with the capabilities of baton.service, and heard from while its workers turn."""

import ctypes
import os
import shutil
import socket
import time

import pytest
from networks import configure, counted

from lab import VIP, Classic, Director, Problem, config_text, count_servers
from lab.director import binary
from lab.topology import REPOSITORY

USER = 61234
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WAIT_ALL = 0x4206, 0x4207, 17, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def unit(key, file="baton.service"):
    """The value of a key of baton.service, or of a drop-in for it."""
    [value] = [line.partition("=")[2] for line in (REPOSITORY / "configs" / file).read_text().splitlines() if line.startswith(f"{key}=")]
    return value


def as_the_unit_does(director, *drop_ins):
    """Makes `director` start as a user without rights but those of baton.service and its drop-ins, whose capabilities systemd adds up."""
    host = director.host
    program, config = host.folder / "run" / "program", host.folder / "run" / "baton.toml"
    shutil.copyfile(binary(), program)
    program.chmod(0o755)
    shutil.copyfile(director.config_path, config)
    config.chmod(0o644)
    for folder in ("run", "lib"):
        (host.folder / folder).chmod(0o755)
        (host.folder / folder / "baton").mkdir()
        os.chown(host.folder / folder / "baton", USER, USER)
    granted = []
    for file in ("baton.service", *drop_ins):
        assert unit("CapabilityBoundingSet", file) == unit("AmbientCapabilities", file)
        granted += unit("AmbientCapabilities", file).lower().replace("cap_", "+").split()
    capabilities = ",".join(["-all", *granted])
    director.words = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", f"--bounding-set={capabilities}",
                      f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", "/run/program", "run", "--config", "/run/baton.toml"]


@pytest.mark.parametrize("attach", ["af_packet", "tap"])
def test_capabilities_of_the_unit_suffice(attach):
    with Classic(attach=attach) as lab:
        director = Director(lab.director, config_text(lab.device), started=lab.join_tap if attach == "tap" else None)
        lab.prepare()
        lab.serve()
        as_the_unit_does(director)
        with director:
            status = dict(line.split(":\t", 1) for line in open(f"/proc/{director.process.pid}/status").read().splitlines() if ":\t" in line)
            assert status["Uid"].split() == [str(USER)] * 4 and status["NoNewPrivs"] == "1"
            network = type("Network", (), {"director": director, "servers": lab.servers})
            configure(network, VIP)
            assert counted(network, count_servers(lab.client, VIP, 12)) == [4, 4, 4]
            director.api.patch(f"services/tcp:{VIP}:80", {"health": {"type": "http", "interval": "200ms"}})
            until = time.monotonic() + 20
            while set(states := [server["health"]["state"] for server in director.api.service(f"tcp:{VIP}:80")["real_servers"]]) != {"up"}:
                assert time.monotonic() < until, f"checks on the clients' path: {states}\n{director.log()}"
                time.sleep(0.05)
            assert director.stop() == 0


@pytest.mark.parametrize("drop_ins", [[], ["exec-checks.conf"]], ids=["unit", "drop-in"])
def test_checks_by_programs_run_with_the_drop_in_and_are_refused_without(lonely, drop_ins):
    director = Director(lonely.director, config_text(lonely.device, gateways=()))
    as_the_unit_does(director, *drop_ins)
    health = {"type": "exec", "command": ["/usr/bin/id", "-un"], "body": "^nobody\\b", "interval": "200ms", "timeout": "5s"}
    service = {"protocol": "tcp", "address": VIP, "port": 80, "health": health, "real_servers": [{"address": "10.10.24.21", "mac": "02:00:00:00:00:21"}]}
    with director:
        if not drop_ins:
            with pytest.raises(Problem) as refused:
                director.api.post("services", service)
            assert refused.value.pointers == ["/health/command"] and "CAP_KILL, CAP_SETGID, CAP_SETUID" in str(refused.value)
            return
        director.api.post("services", service)
        until = time.monotonic() + 20
        while (health := director.api.service(f"tcp:{VIP}:80")["real_servers"][0]["health"])["state"] != "up":
            assert time.monotonic() < until and health["state"] != "down", f"{health}\n{director.log()}"
            time.sleep(0.05)


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, host):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(host.folder / "run" / "notify"))
        self.socket.settimeout(20)

    def hear(self):
        return self.socket.recv(4096).decode()

    def wait(self, what):
        """What was heard until a message that contains `what`, which is the last."""
        heard = [self.hear()]
        while what not in heard[-1]:
            heard.append(self.hear())
        return heard


def test_watchdog_is_told_of_a_worker_that_stands_still(lonely):
    systemd = Systemd(lonely.director)
    director = Director(lonely.director, config_text(lonely.device))
    director.env = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1500000"}
    with director:
        assert systemd.wait("READY=1")[-1] == "READY=1"
        systemd.wait("WATCHDOG=1")
        worker = worker_thread(director.process.pid)
        ptrace(PTRACE_SEIZE, worker)
        try:
            ptrace(PTRACE_INTERRUPT, worker)
            os.waitpid(worker, WAIT_ALL)
            assert systemd.wait("worker 0 does not turn")[-1] == "STATUS=worker 0 does not turn"
            for _ in range(3):
                assert systemd.hear() == "STATUS=worker 0 does not turn", "a heartbeat though a worker stands still"
        finally:
            ptrace(PTRACE_DETACH, worker)
        systemd.wait("WATCHDOG=1")
        assert director.stop() == 0
        systemd.wait("STOPPING=1")


def worker_thread(pid):
    """The thread of worker 0."""
    for task in os.listdir(f"/proc/{pid}/task"):
        if open(f"/proc/{pid}/task/{task}/comm").read().startswith("rte-worker"):
            return int(task)
    raise AssertionError("there is no worker's thread")


def ptrace(request, thread):
    if _libc.ptrace(request, thread, None, None):
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
