"""SCTP: services by ipvsadm, associations in the kernel's states. The frames are written by hand: not every kernel speaks SCTP."""

import struct

from lab import VIP
from lab.frames import ethernet, ip, mac

RIP, RIP_MAC = "10.10.24.21", "02:00:00:00:00:15"
INIT, SHUTDOWN, COOKIE_ECHO, SHUTDOWN_COMPLETE = 1, 7, 10, 14


def chunk(kind, sport=1000, dport=3868):
    """A frame with an SCTP packet of one chunk, whose checksum is the director's business as little as its contents."""
    packet = struct.pack("!HHII", sport, dport, 1, 0xDEADBEEF) + struct.pack("!BBH", kind, 0, 20) + bytes(16)
    return ethernet(0x0800, ip("198.51.100.1", VIP, 132, packet))


def test_association_is_directed_and_listed_as_in_the_kernel(wire):
    director = wire.director
    director.ipvsadm(f"-A --sctp-service {VIP}:3868 -s rr")
    director.api.post(f"services/sctp:{VIP}:3868/real-servers", {"address": RIP, "mac": RIP_MAC})
    assert f"SCTP {VIP}:3868 rr" in director.ipvsadm("-Ln")
    assert f"-A --sctp-service {VIP}:3868 -s rr" in director.ipvsadm("-Sn")
    wire.cable.frames()
    sent = chunk(INIT)
    wire.cable.send(sent)
    out = wire.cable.wait(lambda frame: not frame.outgoing and frame.protocol == 132)[-1].bytes
    assert out[:6] == mac(RIP_MAC) and out[12:] == sent[12:]
    for kind, state in ((INIT, "INIT"), (COOKIE_ECHO, "ESTABLISHED"), (SHUTDOWN, "S-RECEIVED"), (SHUTDOWN_COMPLETE, "CLOSED")):
        wire.cable.send(chunk(kind))
        wire.cable.wait(lambda frame: not frame.outgoing and frame.protocol == 132)
        [row] = director.ipvsadm("-Lnc").splitlines()[2:]
        words = row.split()
        assert (words[0], words[2], words[3:]) == ("SCTP", state, ["198.51.100.1:1000", f"{VIP}:3868", f"{RIP}:3868"])
    [entry] = director.api.connections(service=f"sctp:{VIP}:3868")
    assert entry["protocol"] == "sctp" and entry["in_packets"] == 5


def test_sctp_services_survive_save_and_restore(wire):
    rules = f"-A --sctp-service {VIP}:3868 -s wlc -p 60\n-a --sctp-service {VIP}:3868 -r {RIP}:3868 -g -w 2\n"
    wire.director.run(f"ipvsadm -R <<'X'\n{rules}X")
    assert wire.director.ipvsadm("-Sn") == rules
