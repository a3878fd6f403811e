#!/usr/bin/python3
"""Plays recordings of the kernel's IPVS against a director that is attached to the other end of a cable, and tells every difference.

usage: play.py [--only NAME ...] [--list] [--device p0] [--netns peer] [--run PREFIX] [--set LINE] [--reset LINE] [--ttl decrement|preserve] [--netfilter]

The director has MAC 02:00:00:00:d0:00, DIP 10.10.24.10/24 and fd00:10::10/64, gateways 10.10.24.1 and fd00:10::1, and one worker. For a director
of ours `make recordings` sets all that up. By hand, against the kernel's own IPVS:
  play.py --netns peer --run 'ip netns exec director' --ttl decrement --set 'sysctl -qw net.ipv4.vs.{name}={value}' --reset 'ipvsadm -C' --netfilter
"""

import argparse
import ctypes
import os
import subprocess
import sys

from marks import with_our_own_rules
from player import Player, packet_socket
from recordings import LATER, load


def main():
    """Plays; the exit status is 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these scenarios, also those that wait for something")
    parser.add_argument("--list", action="store_true", help="names the scenarios, and what the others wait for")
    parser.add_argument("--device", default="p0")
    parser.add_argument("--netns", help="the network namespace that the device is in")
    parser.add_argument("--run", default="", metavar="PREFIX", help="put before commands, to run them where the director is")
    parser.add_argument("--set", default="baton settings set {name}={value} >/dev/null", metavar="LINE", help="sets an IPVS sysctl")
    parser.add_argument("--reset", metavar="LINE", help="forgets services, connections and settings",
                        default="ipvsadm -C && baton connections flush --yes >/dev/null && baton settings reset >/dev/null && baton marks clear")
    parser.add_argument("--netfilter", action="store_true", help="run recorded iptables lines as they are, not as the director's own mark rules")
    parser.add_argument("--ttl", choices=("decrement", "preserve"), default="decrement")
    given = parser.parse_args()
    scenarios = load()
    if given.list:
        for scenario in scenarios:
            print(scenario["name"], f"(later: {LATER[scenario['name']]})" if scenario["name"] in LATER else "")
        return 0
    unknown = set(given.only) - {scenario["name"] for scenario in scenarios}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if given.netns:
        enter(given.netns)
    player = Player(packet_socket(given.device), lambda line: shell(given.run, line), given.set, given.reset, given.ttl,
                    str if given.netfilter else with_our_own_rules)
    passed = failed = later = 0
    for scenario in scenarios:
        name = scenario["name"]
        if name in given.only if given.only else name not in LATER:
            differences = player.play(scenario)
            passed, failed = passed + (not differences), failed + bool(differences)
            print("FAIL " if differences else "ok   ", name, *differences, sep="\n   " if differences else "")
        elif not given.only:
            later += 1
            print("later", name, f"({LATER[name]})")
    print(f"{passed} passed, {failed} failed, {later} later")
    return 1 if failed else 0


def enter(namespace):
    """Moves this program into a network namespace; the commands leave it again by their own prefix."""
    with open(f"/run/netns/{namespace}", "rb") as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0x40000000):
            sys.exit(f"cannot enter network namespace {namespace}: {os.strerror(ctypes.get_errno())}")


def shell(prefix, line):
    """Runs a line where the director is; all that it printed."""
    done = subprocess.run([*prefix.split(), "/bin/sh", "-c", line], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
