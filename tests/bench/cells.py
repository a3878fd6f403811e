"""What the benchmark prints: a row has cells, a cell is one figure with its targets."""

from dataclasses import dataclass, field, replace

VERDICTS = ("aim", "at least", "missed", "cannot tell", "failed")


@dataclass
class Cell:
    """One figure: what was measured of `what`, and the least and the best that is wanted of it."""

    what: str
    value: float
    unit: str
    at_least: float
    aim: float
    more_is_better: bool = True
    samples: object = None
    note: str = ""
    # Whether this machine can tell at all; the note says why not.
    can_tell: bool = True

    @property
    def verdict(self):
        """One of VERDICTS: which target is reached."""
        if not self.can_tell:
            return "cannot tell"

        def reached(target):
            return self.value >= target if self.more_is_better else self.value <= target

        return "aim" if reached(self.aim) else "at least" if reached(self.at_least) else "missed"

    @property
    def figure(self):
        """What was measured with its unit, in as many digits as show the verdict."""
        texts = (number(self.value, self.unit, more) for more in range(4))
        text = next((text for text in texts if replace(self, value=float(text)).verdict == self.verdict), str(self.value))
        return with_unit(text, self.unit)

    def document(self):
        """For bench.json."""
        return {
            "what": self.what, "value": self.value, "unit": self.unit, "at_least": self.at_least, "aim": self.aim,
            "verdict": self.verdict, "note": self.note, "samples": self.samples,
        }


@dataclass
class Row:
    """A line of the table: its cells, or why there are none."""

    name: str
    title: str
    cells: list = field(default_factory=list)
    failure: str = ""
    seconds: float = 0.0

    @property
    def verdict(self):
        """The worst of its cells'."""
        if self.failure:
            return "failed"
        return max((cell.verdict for cell in self.cells), key=VERDICTS.index, default="failed")

    def document(self):
        """For bench.json."""
        return {
            "name": self.name, "title": self.title, "verdict": self.verdict, "failure": self.failure, "seconds": round(self.seconds, 1),
            "cells": [cell.document() for cell in self.cells],
        }


def number(value, unit, more=0):
    """A figure as people read it: three digits that count, or so many more."""
    if unit in ("frames", "B") and value == int(value):
        return f"{int(value)}"
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits + more}f}"


def shown(value, unit):
    """A figure with its unit."""
    return with_unit(number(value, unit), unit)


def with_unit(text, unit):
    """A figure's text with its unit."""
    return text + ("" if unit == "x" else "%" if unit == "%" else f" {unit}")
