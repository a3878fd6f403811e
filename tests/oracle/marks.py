"""Marks that netfilter gave while a recording was made, as mark rules of the director's own."""

import shlex

MANGLE = ("iptables -t mangle ", "ip6tables -t mangle ")


def with_our_own_rules(command):
    """A recorded line whose parts set or forget netfilter's marks, with `baton marks` in their places; any other line as it is."""
    if not command.startswith(MANGLE):
        return command
    return " && ".join(_one(part.strip()) for part in command.split(";") if part.strip())


def _one(part):
    if not part.startswith(MANGLE):
        return part
    _, _, _, action, *rest = shlex.split(part)
    if action in ("-F", "--flush"):
        return "baton marks clear"
    if action not in ("-A", "--append"):
        raise ValueError(f"no mark rule says this: {part}")
    given = iter(rest)
    mark, options, chain = None, [], next(given)
    for option in given:
        if option in ("-m", "--match", "-j", "--jump"):
            next(given)
        elif option in ("-d", "--destination"):
            options += ["--destination", next(given)]
        elif option in ("-s", "--source"):
            options += ["--source", next(given)]
        elif option in ("-p", "--protocol"):
            options += ["--protocol", next(given)]
        elif option in ("--dport", "--dports", "--destination-port", "--destination-ports"):
            options += ["--ports", next(given).replace(":", "-")]
        elif option in ("--set-mark", "--set-xmark"):
            mark = int(next(given).split("/")[0], 0)
        else:
            raise ValueError(f"no mark rule says {option}: {part}")
    if chain != "PREROUTING" or mark is None:
        raise ValueError(f"no mark rule says this: {part}")
    if "--destination" not in options:
        options += ["--destination", "::/0" if part.startswith("ip6tables") else "0.0.0.0/0"]
    return shlex.join(["baton", "marks", "add", str(mark), *options])
