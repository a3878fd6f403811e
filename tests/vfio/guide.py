"""The commands of OPERATORS.md, as they stand there."""

import re
from dataclasses import dataclass

from lab.topology import REPOSITORY


@dataclass
class Step:
    """One command: its number, where it is typed (`director`, `real-server`, `client`), and its text."""

    number: int
    where: str
    command: str


def steps():
    """The ten commands, in order."""
    text = (REPOSITORY / "OPERATORS.md").read_text()
    found = re.findall(r"^\*\*(\d+)\. [^\n]*(?:\n(?!```)[^\n]*)*\n```sh ([a-z-]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = len(re.findall(r"^```sh", text, re.MULTILINE))
    assert len(found) == blocks == 10, f"{len(found)} commands of {blocks} blocks were understood, and ten are promised"
    assert [int(number) for number, _, _ in found] == list(range(1, 11))
    return [Step(int(number), where, command.strip()) for number, where, command in found]
