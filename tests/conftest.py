"""What all end-to-end tests share."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

pytest.register_assert_rewrite("lab.director", "lab.load")

from lab.director import binary  # noqa: E402


def pytest_addoption(parser):
    """Only tests/testpmd asks for it."""
    parser.addoption("--seconds", type=float, default=5.0, help="how long half of the measured rate is sent; 60 by `make test-testpmd`")


def pytest_configure(config):
    """Says at once, and as a failure, what the machine lacks: a test that cannot run is not a test that passed."""
    if os.geteuid() != 0 and not config.option.collectonly:
        raise pytest.UsageError("these tests make network namespaces and need root: run them with sudo, or `make e2e`")
    if not binary().is_file() and not config.option.collectonly:
        raise pytest.UsageError(f"{binary()} is missing: build it with `make build` (or name another one in BATON)")
