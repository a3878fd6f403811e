"""The table, for terminals and for README.md."""

from cells import shown

COLOURS = {"aim": "32", "at least": "33", "missed": "31", "failed": "1;31", "cannot tell": "36"}
# The verdict says in words what its colour says.
WORDS = {"aim": "aim reached", "at least": "reached", "missed": "MISSED", "failed": "FAILED", "cannot tell": "cannot tell"}


def _lines(rows):
    for row in rows:
        if row.failure:
            yield row.title, "", "", "", "", "failed", row.failure.strip().splitlines()[-1][:160]
        for cell in row.cells:
            sign = ">= " if cell.more_is_better else "<= "
            yield row.title, cell.what, cell.figure, sign + shown(cell.at_least, cell.unit), sign + shown(cell.aim, cell.unit), cell.verdict, cell.note


def table(report, rows, colour):
    """Lines for a terminal."""
    yield headline(report)
    lines = list(_lines(rows))
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(1, 5)]
    widths = [max(width, len(head)) for width, head in zip(widths, ("", "measured", "at least", "aim"))]
    title = None
    for line in lines:
        if line[0] != title:
            title = line[0]
            yield ""
            yield (f"\033[1m{title}\033[0m" if colour else title)
        word = f"{WORDS[line[5]]:<11}"
        word = f"\033[{COLOURS[line[5]]}m{word}\033[0m" if colour else word
        what, measured, at_least, aim = (text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(line[1:5], widths)))
        yield f"  {what}  {measured}  {at_least}  {aim}  {word}  {line[6]}".rstrip()
    yield from comparison(report)


def headline(report):
    """What was measured on, and when."""
    pages = f"huge pages{' (not for ' + ', '.join(report['without_huge_pages']) + ')' if report['without_huge_pages'] else ''}"
    return f"{report['machine']}, Linux {report['kernel']}, {pages}, {report['date']}, commit {report['commit']}"


def _indexes(report):
    for table in report["indexes"]:
        yield (
            {"fixed": "fixed buckets", "hashbrown": "hashbrown, ids", "hashbrown_inline": "hashbrown, entries"}[table["table"]],
            f"{min(table['hit_ns']):.1f}", f"{min(table['miss_ns']):.1f}", f"{min(table['churn_ns']):.0f}", f"{table['worst_insert_us']:.1f}", f"{table['bytes_each']:.0f}",
        )


INDEX_HEAD = ("connection index", "found ns", "not found ns", "remove and insert ns", "slowest insert us", "bytes each")


def comparison(report):
    """The connection index beside hashbrown."""
    if not report["indexes"]:
        return
    lines = [INDEX_HEAD, *_indexes(report)]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    yield ""
    for line in lines:
        yield "  " + "  ".join(text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(line, widths)))


def markdown(report, rows):
    """Lines for README.md."""
    yield f"`{report['command']}`, {headline(report)}."
    yield ""
    yield "| what | measured | at least | aim | | how |"
    yield "| --- | ---: | ---: | ---: | --- | --- |"
    for title, what, measured, *targets, verdict, note in _lines(rows):
        at_least, aim = (target.replace(">=", "≥").replace("<=", "≤") for target in targets)
        emphasis = "**" if verdict in ("missed", "failed") else ""
        yield f"| {title}{': ' + what if what else ''} | {measured} | {at_least} | {aim} | {emphasis}{WORDS[verdict].lower()}{emphasis} | {note} |"
    if report["indexes"]:
        yield ""
        yield "| " + " | ".join(INDEX_HEAD) + " |"
        yield "| --- |" + " ---: |" * 5
        for line in _indexes(report):
            yield "| " + " | ".join(line) + " |"
