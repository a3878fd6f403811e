"""What the demo prints: numbered steps, commands, what was seen; colour only on a terminal that wants it."""

import os
import sys

PER_ROW = 12


class Screen:
    """Writes to standard output, a line at a time."""

    def __init__(self):
        self.number = 0
        self.failed = False
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def line(self, text=""):
        """A line, or several."""
        print(text, flush=True)

    def paint(self, code, text):
        """Text in a colour, where there are colours."""
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def good(self, text):
        """Green."""
        return self.paint("1;32", text)

    def bad(self, text):
        """Red."""
        return self.paint("1;31", text)

    def heading(self, text):
        """A headline."""
        self.line("\n" + self.paint("1", text) + "\n")

    def step(self, title):
        """Begins the next numbered step."""
        self.number += 1
        self.line("\n" + self.paint("1;36", f"{self.number:2d}. {title}"))

    def say(self, text):
        """What this step does."""
        self.line(f"    {text}")

    def command(self, host, command):
        """A command as a user would type it."""
        self.line(f"    {self.paint('2', host + '$')} {self.paint('1', command)}")

    def show(self, text):
        """What a command printed."""
        for line in text.rstrip().splitlines():
            self.line(f"      {line}")

    def passed(self, what):
        """The step holds."""
        self.line(f"    {self.good('PASS')}  {what}")

    def fail(self, what):
        """The step does not hold."""
        self.failed = True
        self.line(f"    {self.bad('FAIL')}  " + "\n          ".join(what.splitlines() or ["(no reason given)"]))


def frames_side_by_side(screen, before, after):
    """Two frames in hex, twelve bytes a row: the first row is destination and source MAC. Written bytes are marked under the row."""
    width = PER_ROW * 3 - 1
    rows = [f"      {'':4}  {'before':<{width}}   after"]
    for at in range(0, max(len(before), len(after)), PER_ROW):
        one, two = before[at:at + PER_ROW], after[at:at + PER_ROW]
        differs = [index >= len(one) or index >= len(two) or one[index] != two[index] for index in range(max(len(one), len(two)))]
        left, right = (
            " ".join(screen.paint("1;33", f"{byte:02x}") if differs[index] else f"{byte:02x}" for index, byte in enumerate(part))
            for part in (one, two))
        padding = " " * (width - (len(one) * 3 - 1))
        rows.append(f"      {at:04x}  {left}{padding}   {right}")
        if any(differs):
            marks = " ".join("^^" if differ else "  " for differ in differs)
            note = "   destination MAC, source MAC" if at == 0 else ""
            rows.append(f"      {'':4}  {marks:<{width}}   {marks}{note}")
    return "\n".join(rows)
