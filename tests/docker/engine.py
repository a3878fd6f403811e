"""A Docker of the test's own: dockerd with its folders under target/docker and in the lab's, its networks in a namespace, no registry."""

import os
import shutil
import subprocess
import time

from lab.lab import Lab
from lab.topology import REPOSITORY

FOLDER = REPOSITORY / "target" / "docker"
# What both Dockerfiles begin from. Here it is made from Debian's packages; elsewhere it comes from a registry.
BASE = "debian:bookworm-slim"
DIRECTOR, MACHINE = "baton", "baton-lab"
SOURCES = "".join(f"deb http://deb.debian.org/{which} main\n" for which in ("debian bookworm", "debian bookworm-updates", "debian-security bookworm-security"))
# Where an administrator puts authorities that this machine trusts besides Debian's.
AUTHORITIES = "usr/local/share/ca-certificates"


class Engine(Lab):
    """A context manager: dockerd, on this machine's network (to build), or on one of its own (to run)."""

    def __init__(self, isolated):
        super().__init__()
        self.isolated = isolated

    def build(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        enter = []
        if self.isolated:
            # Not `ip netns exec`: that hides the control groups, which containers need.
            enter = ["nsenter", f"--net=/run/netns/{self.host('docker').namespace}"]
        self.socket = f"unix://{self.folder}/docker.sock"
        log = (self.folder / "dockerd.log").open("wb")
        self.process = subprocess.Popen(
            [*enter, "dockerd", "--host", self.socket, "--data-root", FOLDER / "data", "--exec-root", self.folder / "exec", "--pidfile",
             self.folder / "pid", "--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level=warn"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        log.close()
        self.adopt(self.process)
        self.wait(lambda: self.docker("version", check=False).returncode == 0, "dockerd does not answer")

    def close(self):
        """Ends the containers with dockerd, before the lab ends what is left."""
        if getattr(self, "process", None) is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        super().close()

    def docker(self, *words, check=True, timeout=60):
        """`docker` with these words; returns its CompletedProcess with text."""
        return self._run(["docker", *words], check, timeout)

    def compose(self, *words, check=True, timeout=120):
        """Compose on docker/compose.yaml: Debian's, or Docker's plugin."""
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        return self._run([*program, "-f", str(REPOSITORY / "docker" / "compose.yaml"), "-p", "lab", *words], check, timeout)

    def _run(self, words, check, timeout):
        # BuildKit fetches an image of its own from a registry; the builder inside dockerd does not.
        environment = {**os.environ, "DOCKER_HOST": self.socket, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=environment, cwd=REPOSITORY,
            check=False)
        assert done.returncode == 0 or not check, f"{words} ended with status {done.returncode} and said: {(done.stdout + done.stderr)[-4000:]}"
        return done

    def wait(self, holds, what, longest=60):
        """Waits until `holds()` is true."""
        until = time.monotonic() + longest
        while not holds():
            log = self.folder / "dockerd.log"
            assert self.process.poll() is None and time.monotonic() < until, f"{what}: {log.read_text(errors='replace')[-2000:]}"
            time.sleep(0.2)

    def has_image(self, name):
        """Whether there is an image of this name."""
        return self.docker("image", "inspect", name, check=False).returncode == 0


def build_images(engine):
    """The base, an image with this machine's Rust, and from these the two that the lab runs. What is unchanged since the last time is kept."""
    if not engine.has_image(BASE):
        engine.docker("import", _base(), BASE, timeout=300)
    builder = _builder(engine)
    # apt and cargo need the machine's network: Docker's own has no way out here.
    build = ["build", "--quiet", "--network=host"]
    engine.docker(*build, "--file", "docker/lab/Dockerfile", "--tag", MACHINE, ".", timeout=600)
    engine.docker(*build, "--file", "docker/Dockerfile", "--build-arg", f"BUILDER={builder}", "--tag", DIRECTOR, ".", timeout=3600)


def _base():
    """Debian 12 with nothing but what is essential, as a tar file."""
    archive = FOLDER / "base.tar"
    if archive.is_file():
        return archive
    root = FOLDER / "base"
    shutil.rmtree(root, ignore_errors=True)
    _command(["debootstrap", "--variant=minbase", "bookworm", root], timeout=1200)
    (root / "etc" / "apt" / "sources.list").write_text(SOURCES)
    shutil.copytree(f"/{AUTHORITIES}", root / AUTHORITIES, dirs_exist_ok=True)
    for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / left)
        (root / left).mkdir()
    _command(["tar", "--create", "--file", FOLDER / "base.tar.new", "--directory", root, "."], timeout=120)
    shutil.rmtree(root)
    (FOLDER / "base.tar.new").rename(archive)
    return archive


def _builder(engine):
    """The name of an image with this machine's Rust in /usr/local: rustup's servers are not everywhere within reach."""
    version = _command(["rustc", "--version"]).split()[1]
    name = f"baton-builder:{version}"
    if not engine.has_image(name):
        context = FOLDER / "builder"
        shutil.rmtree(context, ignore_errors=True)
        for part in ("bin", "lib"):
            shutil.copytree(f"{_command(['rustc', '--print', 'sysroot']).strip()}/{part}", context / part, symlinks=True)
        (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY bin /usr/local/bin\nCOPY lib /usr/local/lib\n")
        engine.docker("build", "--quiet", "--tag", name, context, timeout=600)
        shutil.rmtree(context)
    return name


def _command(words, timeout=60):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{words} ended with status {done.returncode} and said: {(done.stdout + done.stderr)[-4000:]}"
    return done.stdout
