#!/usr/bin/python3 -I
"""`make demo`: one virtual IP, three real web servers, direct routing, with proof on the screen.

usage: demo.py [--keep | --end NAME]
  --keep      leaves everything running afterwards, with a way into each host
  --end NAME  ends what --keep left running
"""

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import PUBLIC, VIP, Capture, Classic, Director, LabError, config_text, wrk  # noqa: E402
from lab.host import CommandFailed  # noqa: E402
from lab.lab import end  # noqa: E402
from lab.load import wrk_words  # noqa: E402
from lab.screen import Screen, frames_side_by_side  # noqa: E402
from lab.servers import FILE_SIZE, file_content  # noqa: E402

PICTURE = """\
   client ---------- router ------------ switch ------- director     VIP 10.10.24.88, DIP 10.10.24.10
   203.0.113.10      203.0.113.88          |            (baton: DPDK on the virtual cable d0)
                     is mapped to          |
                     10.10.24.88           +-- rs1 10.10.24.21   \\
                     10.10.24.1            +-- rs2 10.10.24.22    } nginx, VIP on lo, default gateway 10.10.24.1
                                           +-- rs3 10.10.24.23   /

   request   client > router > director > real server     the director writes a new destination MAC, nothing else
   answer    real server > router > client                 the director never sees it"""


FILE_DIGEST = hashlib.sha256(file_content()).hexdigest()


class Failed(Exception):
    """A step saw something else than it must."""


def must(holds, otherwise):
    """Ends the step unless `holds`."""
    if not holds:
        raise Failed(otherwise)


def same_packet(one, two):
    """Whether two frames carry the same packet, by what a director never changes: IP id, addresses, ports and sequence number."""
    return one[18:20] == two[18:20] and one[26:42] == two[26:42]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", action="store_true")
    arguments.add_argument("--end", metavar="NAME")
    given = arguments.parse_args()
    screen = Screen()
    try:
        if given.end:
            end(given.end)
            screen.line(f"{given.end} is ended.")
            return 0
        return Demo(screen, given.keep).run()
    except (LabError, CommandFailed) as error:
        screen.line(screen.bad(f"demo: {error}"))
        return 1


class Demo:
    """The steps, and what each hands to the next."""

    def __init__(self, screen, keep):
        self.screen = screen
        self.keep = keep
        self.lab = Classic()
        self.director = None
        self.capture = None
        self.frames = []

    def run(self):
        """Runs every step; the exit status."""
        began = time.monotonic()
        self.screen.heading("Direct routing, end to end")
        self.screen.line(PICTURE)
        with self.lab:
            passed = all([self.step(*step) for step in (
                ("Three web servers are prepared for direct routing", self.prepare),
                ("The director starts", self.start_director),
                ("The virtual service is configured with ipvsadm", self.configure),
                ("30 requests to the public address", self.thirty_requests),
                ("The same frame before and after the director", self.same_frame),
                ("No answer passed the director", self.no_answer_passed),
                ("Weights 2 and 4", self.weights),
                ("The connections that the director remembers", self.connections),
                ("A real server is taken out while a download from it runs", self.quiesce),
                ("Five seconds of load", self.load),
                ("A real server loses its VIP, and its own address still answers", self.lost_vip),
            )])
            if self.keep:
                self.hints()
                self.lab.keep()
            elif passed:
                self.screen.line("\nThe lab is being taken down; `make demo KEEP=1` leaves it running.")
        seconds = time.monotonic() - began
        verdict = self.screen.good("Everything holds") if passed else self.screen.bad("Something does not hold: see FAIL above")
        self.screen.line(f"{verdict} ({seconds:.0f} s).")
        return 0 if passed else 1

    def step(self, title, work):
        """One numbered step; True when it holds. After a failure the rest is not tried."""
        if self.screen.failed:
            return False
        self.screen.step(title)
        try:
            self.screen.passed(work())
        except (Failed, CommandFailed, AssertionError, OSError) as error:
            self.screen.fail(str(error))
            if self.director:
                self.screen.say("The director's last words:")
                self.screen.show("\n".join(self.director.log().splitlines()[-8:]))
            return False
        return True

    def ipvsadm(self, line):
        """Types a line of ipvsadm's on the director and shows it."""
        self.screen.command("director", f"ipvsadm {line}")
        return self.director.ipvsadm(line)

    # -- the steps --------------------------------------------------------------------------------------------------------------------------

    def prepare(self):
        """Web servers start; `baton realserver apply` puts the VIP on lo and keeps it out of ARP."""
        self.screen.say("Each real server runs nginx. It must accept packets for the VIP without telling anybody that it has it.")
        self.director = Director(self.lab.director, config_text(self.lab.device, ttl="preserve"))
        self.screen.command("rs1, rs2, rs3", f"baton realserver apply --vip {VIP}")
        self.lab.prepare(VIP)
        self.lab.serve()
        for server in self.lab.servers:
            server.run(["baton", "realserver", "check", "--vip", VIP])
        self.screen.command("rs1", f"baton realserver check --vip {VIP}")
        self.screen.show(self.lab.servers[0].run(["baton", "realserver", "check", "--vip", VIP]).stdout)
        return "the check finds nothing wrong on any of the three"

    def start_director(self):
        """`baton run`."""
        self.screen.say("DPDK takes over the cable d0; no hugepages and no NIC are needed for this.")
        self.screen.command("director", "baton run --config baton.toml")
        self.director.start()
        port = self.director.api.get("ports")[0]
        return f"ready: port {port['name']}, driver {port['driver']}, MAC {port['mac']}"

    def configure(self):
        """The lines of every LVS how-to, and the listing."""
        self.screen.say("Lines as they stand in people's runbooks: a service, its real servers (-g: direct routing), and the listing.")
        self.ipvsadm(f"-A -t {VIP}:80 -s rr")
        for server in self.lab.servers:
            self.ipvsadm(f"-a -t {VIP}:80 -r {server.address} -g")
        listing = self.ipvsadm("-ln")
        self.screen.show(listing)
        must(listing.count("Route   1") == 3, "the listing does not show three real servers with weight 1")
        return "one virtual service with three real servers, round robin"

    def type(self, host, line):
        """Types a line on a host and shows it; what it printed."""
        self.screen.command(host.name, line)
        return host.run(line).stdout

    def requests(self, count):
        """Requests from the client, each on a connection of its own; every server answers with its name. Answers per server, in order."""
        answers = Counter(self.type(self.lab.client, f"for i in $(seq {count}); do curl -s -m 5 http://{PUBLIC}/; done").split())
        for server in self.lab.servers:
            number = answers[server.name]
            self.screen.line(f"      {server.name}  {server.address}  {number:3d}  {'#' * number}")
        return [answers[server.name] for server in self.lab.servers]

    def thirty_requests(self):
        """rr gives each server a third."""
        self.screen.say("The client asks the router's public address; every server answers with its own name.")
        self.capture = Capture(self.lab.switch, "director")
        counts = self.requests(30)
        self.frames = self.capture.frames()
        must(counts == [10, 10, 10], "expected 10, 10 and 10")
        return "10 for each"

    def same_frame(self):
        """One request's frame as it went to the director and as it came back."""
        self.screen.say("Captured on the switch, at the director's cable: the first SYN as it went in, and as it came out.")
        # What the switch sends on this cable goes into the director.
        before = next((f.bytes for f in self.frames if f.outgoing and f.ports and f.ports[1] == 80), None)
        must(before, "no request was captured on its way to the director")
        after = next((f.bytes for f in self.frames if not f.outgoing and f.ports and same_packet(f.bytes, before)), None)
        must(after, "this packet did not come out of the director")
        must(len(after) == len(before), f"{len(before)} bytes went in and {len(after)} came out")
        self.screen.line(frames_side_by_side(self.screen, before, after))
        differing = [index for index in range(len(before)) if before[index] != after[index]]
        must(differing == list(range(12)), f"the bytes that differ are not the first twelve: {differing}")
        must(after[:6].hex(":") in [server.mac for server in self.lab.servers], "the new destination MAC is not a real server's")
        must(after[6:12] == before[:6], "the new source MAC is not the director's")
        return f"exactly twelve of {len(before)} bytes differ: the two Ethernet addresses"

    def no_answer_passed(self):
        """Interface counters around a download, and the capture of the thirty requests."""
        self.screen.say("A file of 8 MiB goes to the client; the counters of the cables tell which way it went.")
        watched = [("client", self.lab.client, "eth0", "rx_bytes"), ("router, from the switch", self.lab.router, "inside", "rx_bytes"),
                   ("director, in", self.lab.director, "d0", "rx_bytes"), ("director, out", self.lab.director, "d0", "tx_bytes")]
        before = [host.counters(device)[key] for _, host, device, key in watched]
        digest = self.type(self.lab.client, f"curl -s -m 20 http://{PUBLIC}/file | sha256sum").split()[0]
        must(digest == FILE_DIGEST, "the file arrived damaged")
        moved = [host.counters(device)[key] - was for (_, host, device, key), was in zip(watched, before)]
        for (label, *_), number in zip(watched, moved):
            self.screen.line(f"      {label:<26}{number:>12,} bytes")
        frames = self.frames + self.capture.frames()
        answers = [frame for frame in frames if frame.ports and frame.ports[0] == 80]
        requests = sum(1 for frame in frames if frame.ports and frame.ports[1] == 80)
        self.screen.line(f"      {'captured at the director':<26}{requests:>12,} frames to port 80, {len(answers)} from port 80")
        must(moved[0] > FILE_SIZE and moved[1] > FILE_SIZE, "the client's and the router's counters do not show the file")
        must(moved[2] < FILE_SIZE // 10 and moved[3] < FILE_SIZE // 10, "the director's counters show the file")
        must(requests > 100 and not answers, f"{len(answers)} frames with source port 80 were seen at the director")
        return "the file went from the real server straight to the router: 0 answers at the director"

    def weights(self):
        """wrr with weights 2 and 4."""
        self.screen.say("Weighted round robin: 2 for rs1, 4 for rs2, and 0 for rs3, which therefore gets nothing new.")
        first, second, third = self.lab.servers
        self.ipvsadm(f"-E -t {VIP}:80 -s wrr")
        self.ipvsadm(f"-e -t {VIP}:80 -r {first.address} -g -w 2")
        self.ipvsadm(f"-e -t {VIP}:80 -r {second.address} -g -w 4")
        self.ipvsadm(f"-e -t {VIP}:80 -r {third.address} -g -w 0")
        counts = self.requests(30)
        must(counts == [10, 20, 0], "expected 10, 20 and 0")
        return "1 : 2, and nothing for weight 0"

    def connections(self):
        """`ipvsadm -lnc`."""
        self.screen.say("Every connection has an entry, so that its packets keep going to the same real server until it ends.")
        listing = self.ipvsadm("-lnc").splitlines()
        self.screen.show("\n".join(listing[:8] + ([f"... {len(listing) - 8} more"] if len(listing) > 8 else [])))
        entries = [line.split() for line in listing[2:]]
        must(len(entries) >= 60, f"expected at least the 60 connections of the steps above, found {len(entries)}")
        for words in entries:
            must(words[0] == "TCP" and words[4] == f"{VIP}:80", f"this is not one of ours: {' '.join(words)}")
            must(words[5].rpartition(":")[0] in [server.address for server in self.lab.servers], f"no real server of ours: {' '.join(words)}")
        return f"{len(entries)} connection entries, each with its state and the time that it has left"

    def quiesce(self):
        """Weight 0 during a download."""
        self.screen.say("A quiescent real server keeps the connections that it has and gets no new ones: so it can be taken out in peace.")
        first, second, _ = self.lab.servers
        folder = self.lab.folder
        words = ["curl", "-s", "-m", "30", "-D", folder / "headers", "-o", folder / "file", f"http://{PUBLIC}/slow"]
        self.screen.command("client", f"curl -s -D headers -o file http://{PUBLIC}/slow &")
        download = self.lab.client.start(words)
        name = self.server_of(folder / "headers")
        busy, other = (first, second) if name == first.name else (second, first)
        self.screen.line(f"      it comes from {busy.name}, which now gets weight 0")
        self.ipvsadm(f"-e -t {VIP}:80 -r {busy.address} -g -w 0")
        counts = dict(zip((server.name for server in self.lab.servers), self.requests(12)))
        must(download.poll() is None, "the download ended too early to prove anything")
        must(counts[busy.name] == 0 and counts[other.name] == 12, f"{busy.name} got {counts[busy.name]} new connections")
        must(download.wait(25) == 0, f"the download broke: curl ended with status {download.returncode}")
        must(hashlib.sha256((folder / "file").read_bytes()).hexdigest() == FILE_DIGEST, "the download arrived damaged")
        return f"the download went on to its last byte ({FILE_SIZE:,} in all), and {busy.name} got no new connection"

    @staticmethod
    def server_of(headers):
        """The server that an answer comes from, once its headers are there."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if headers.exists() and "X-Real-Server: " in (text := headers.read_text()):
                return text.split("X-Real-Server: ")[1].split()[0]
            time.sleep(0.01)
        raise Failed("the download did not begin")

    def load(self):
        """wrk."""
        self.screen.say("All three servers again, and a load generator with 50 connections.")
        self.ipvsadm(f"-E -t {VIP}:80 -s rr")
        for server in self.lab.servers:
            self.ipvsadm(f"-e -t {VIP}:80 -r {server.address} -g -w 1")
        self.screen.command("client", " ".join(wrk_words(PUBLIC, 5, 50)))
        result = wrk(self.lab.client, PUBLIC, seconds=5, connections=50)
        self.screen.show(result.text)
        must(result.requests > 0, "no request was answered")
        must(result.failed == 0, f"{result.failed} requests failed")
        self.screen.show(self.ipvsadm("-ln --stats"))
        return f"{result.requests:,} requests, none failed"

    def lost_vip(self):
        """A health check on the clients' path."""
        self.screen.say("Health checks go where the clients' packets go: to the VIP, with each real server's MAC.")
        document = '{"health": {"type": "http", "interval": "500ms"}}'
        service = f"http://baton/api/v1/services/tcp:{VIP}:80"
        self.type(self.director.host, f"curl -s --unix-socket /run/baton/baton.sock -X PATCH -H 'Content-Type: application/json' -d '{document}' {service}")
        self.waits_for("up", "up", "up")
        victim = self.lab.servers[0]
        self.type(victim, f"ip address del {VIP}/32 dev lo")
        must(self.lab.router.run(["curl", "-s", "-m", "5", f"http://{victim.address}/"]).stdout.strip() == victim.name, "its own address does not answer")
        self.screen.line(f"      http://{victim.address}/ still answers")
        began = time.monotonic()
        self.waits_for("down", "up", "up")
        seconds = time.monotonic() - began
        listing = self.type(self.director.host, "baton get services")
        self.screen.show(listing)
        must("RIP answers, VIP does not" in listing, "the listing does not say why")
        must(self.requests(12) == [0, 6, 6], "expected 0, 6 and 6")
        self.type(victim, f"baton realserver apply --vip {VIP}")
        self.waits_for("up", "up", "up")
        must(self.requests(12) == [4, 4, 4], "expected 4, 4 and 4")
        return f"out after {seconds:.1f} s with the reason, and back once it had its VIP again; nothing of the configuration was changed"

    def waits_for(self, *states):
        """Until the checks say this of the real servers, in order."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            servers = self.director.api.service(f"tcp:{VIP}:80")["real_servers"]
            if tuple(server["health"]["state"] for server in servers) == states:
                return
            time.sleep(0.05)
        raise Failed(f"the checks do not come to {', '.join(states)} within 10 s")

    def hints(self):
        """How to enter each host."""
        self.screen.heading("Left running")
        for host in self.lab.hosts.values():
            self.screen.line(f"  a shell on {host.name:<10} {'sudo ' if os.environ.get('SUDO_USER') else ''}{host.enter}")
        self.screen.line("  try there             ipvsadm -ln; baton get workers; tcpdump -eni d0    (on the director)")
        self.screen.line(f"                        curl http://{PUBLIC}/                           (on the client)")
        self.screen.line(f"  the director's log    {self.director.log_path}")
        self.screen.line(f"  to end it             make demo-end LAB={self.lab.name}\n")


if __name__ == "__main__":
    sys.exit(main())
