"""schemathesis asks the real API what its OpenAPI document says can be asked, and much that it says cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab import Director, config_text
from lab.topology import REPOSITORY

LISTEN = "127.0.0.1:8081"
# What a document may be beyond its schema (a VIP that is not the DIP, a real server on a connected network) no schema can say: 422 names it.
NOT_ASKED = "positive_data_acceptance"


@pytest.fixture(scope="session")
def schemathesis():
    """The program, in a virtual environment of its own below target/, in the versions of schemathesis.txt."""
    wanted = Path(__file__).with_name("schemathesis.txt")
    folder = REPOSITORY / "target" / "schemathesis"
    made = folder / "made-of.txt"
    if not made.exists() or made.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r", wanted], check=True)
        made.write_text(wanted.read_text())
    return folder / "bin" / "schemathesis"


def test_schemathesis_finds_no_violation(lonely, schemathesis):
    text = config_text(lonely.device, gateways=()).replace("[control]\n", f'[control]\nlisten = "{LISTEN}"\n')
    with Director(lonely.director, text) as director:
        before = director.memory_kib()
        done = director.host.run(
            [schemathesis, "run", f"http://{LISTEN}/api/v1/openapi.json", "--url", f"http://{LISTEN}", "--seed", "1", "--max-examples", "15",
             "--phases", "examples,coverage,fuzzing", "--exclude-checks", NOT_ASKED, "--request-timeout", "10", "--no-shrink", "--warnings", "off"],
            check=False, timeout=300, env={"NO_COLOR": "1"})
        assert done.returncode == 0, done.stdout + done.stderr
        assert director.process.poll() is None and director.api.raw("GET", "/livez")[0] == 200
        assert director.memory_kib() < before + 200 * 1024
