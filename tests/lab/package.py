"""The package under test."""

from .topology import REPOSITORY

FOLDER = REPOSITORY / "target" / "debian"


def package():
    """The .deb that `make deb` made of this version."""
    [version] = [line.split('"')[1] for line in (REPOSITORY / "Cargo.toml").read_text().splitlines() if line.startswith("version = ")]
    path = FOLDER / f"baton_{version}_amd64.deb"
    assert path.is_file(), f"{path} is missing: build it with `make deb`"
    return path
