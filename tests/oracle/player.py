"""Everybody but the director: answers its ARP and neighbour solicitations, sends recorded frames, collects what comes out."""

import socket
import struct
import threading
import time

from recordings import OPTIONS_UNTOUCHED, canonical, checksum, is_fragment, same_text, without_options

LAST_OCTETS = frozenset((1, 21, 22, 23, 24))
PREFIX6 = bytes.fromhex("fd000010000000000000000000000000")[:15]
ETH_P_ALL, OUTGOING = 3, 4
ANSWER_TIME, SILENCE = 1.0, 0.02


class Difference:
    """A step at which the director did not do what the kernel did."""

    def __init__(self, step, what, kernel, here):
        self.step, self.what, self.kernel, self.here = step, what, kernel, here

    def __str__(self):
        return f"step {self.step}, {self.what}\n   kernel: {_show(self.kernel)}\n   here:   {_show(self.here)}"


def _show(value):
    if isinstance(value, str):
        return "\n           ".join(value.rstrip().splitlines()) or "(nothing)"
    return "\n           ".join(map(str, value)) or "(no frame)"


class Player:
    """Plays scenarios over a packet socket that is bound to the far end of the director's cable.

    `shell` runs a line on the director's host and returns all that it printed; `setting` is a line that sets an IPVS sysctl by {name} and {value};
    `reset` forgets services, connections and settings; `translate` turns a recorded line into what the director understands.
    """

    def __init__(self, wire, shell, setting, reset, ttl="decrement", translate=str):
        self._wire, self._shell, self._setting, self._reset, self._ttl = wire, shell, setting, reset, ttl
        self._translate = translate
        self._arrived, self._inbox, self._open = threading.Condition(), [], True
        wire.settimeout(0.2)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self):
        """Ends the listener."""
        self._open = False
        self._listener.join()

    # -- the neighbourhood ------------------------------------------------------------------------------------------------------------------

    def _listen(self):
        while self._open:
            try:
                frame, address = self._wire.recvfrom(65535)
            except TimeoutError:
                continue
            if address[2] == OUTGOING:
                continue
            kind = frame[12:14]
            if kind == b"\x08\x06":
                self._answer_arp(frame)
            elif kind == b"\x86\xdd" and _is_neighbourhood(frame):
                self._answer_solicitation(frame)
            elif kind in (b"\x08\0", b"\x86\xdd"):
                with self._arrived:
                    self._inbox.append(frame)
                    self._arrived.notify()

    def _answer_arp(self, frame):
        operation, target = frame[20:22], frame[38:42]
        if operation == b"\0\1" and target[:3] == bytes((10, 10, 24)) and target[3] in LAST_OCTETS:
            mac = _mac(target[3])
            self._wire.send(frame[6:12] + mac + b"\x08\x06\0\1\x08\0\6\4\0\2" + mac + target + frame[22:32] + bytes(18))

    def _answer_solicitation(self, frame):
        target, solicitor = frame[62:78], frame[22:38]
        # fd00:10::21 has the MAC of 10.10.24.21: the digits are the same.
        digits = f"{target[15]:x}"
        if frame[54] != 135 or target[:15] != PREFIX6 or not digits.isdigit() or int(digits) not in LAST_OCTETS:
            return
        last = int(digits)
        message = b"\x88\0\0\0\x60\0\0\0" + target + b"\2\1" + _mac(last)
        pseudo = target + solicitor + struct.pack("!IHBB", len(message), 0, 0, 58)
        message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
        header = b"\x60\0\0\0" + struct.pack("!HBB", len(message), 58, 255) + target + solicitor
        self._wire.send(frame[6:12] + _mac(last) + b"\x86\xdd" + header + message)

    # -- playing ----------------------------------------------------------------------------------------------------------------------------

    def play(self, scenario):
        """Plays one scenario; returns its differences."""
        self._run(self._reset)
        for name, value in scenario.get("sysctl", {}).items():
            self._run(self._setting.format(name=name, value=value))
        differences = []
        # Consecutive fragments count as one step: what came out of them all.
        fragments = None
        for number, step in enumerate(scenario["steps"]):
            if "pkt" in step and is_fragment(bytes.fromhex(step["pkt"])):
                fragments = self._fragment(step, fragments)
                continue
            if fragments:
                differences.append(_of_fragments(number - 1, fragments))
                fragments = None
            if "cmd" in step:
                difference = self._command(scenario["name"], number, step)
            elif "sleep" in step:
                time.sleep(step["sleep"])
                difference = None
            else:
                difference = self._frame(scenario["name"], number, step)
            differences.append(difference)
        if fragments:
            differences.append(_of_fragments(len(scenario["steps"]) - 1, fragments))
        return [difference for difference in differences if difference]

    def _run(self, line):
        said = self._shell(line)
        if said.strip():
            raise AssertionError(f"{line}\nsays: {said}")

    def _command(self, name, number, step):
        command, kernel = step["cmd"], step["out"]
        here = self._shell(self._translate(command))
        return None if same_text(command, here, kernel) else Difference(number, command, kernel, here)

    def _send(self, packet, wanted):
        """Sends a frame; returns what comes out, at least `wanted` frames if they come."""
        with self._arrived:
            self._inbox.clear()
        self._wire.send(packet)
        until = time.monotonic() + (ANSWER_TIME if wanted else SILENCE)
        with self._arrived:
            while (left := until - time.monotonic()) > 0 and (not wanted or len(self._inbox) < wanted):
                self._arrived.wait(left)
        if wanted:
            time.sleep(0.001)
        with self._arrived:
            return [canonical(frame, self._ttl) for frame in self._inbox]

    def _fragment(self, step, before):
        kernel, here = before or ([], [])
        kernel = kernel + [canonical(bytes.fromhex(frame), self._ttl) for frame in step["out"]]
        return kernel, here + self._send(bytes.fromhex(step["pkt"]), max(0, len(kernel) - len(here)))

    def _frame(self, name, number, step):
        kernel = [canonical(bytes.fromhex(frame), self._ttl) for frame in step["out"]]
        here = self._send(bytes.fromhex(step["pkt"]), len(kernel))
        if (name, step.get("note")) in OPTIONS_UNTOUCHED:
            kernel, here = list(map(without_options, kernel)), list(map(without_options, here))
        return None if here == kernel else Difference(number, step.get("note", "frame"), kernel, here)


def _of_fragments(number, fragments):
    kernel, here = map(sorted, fragments)
    return None if here == kernel else Difference(number, "all fragments", kernel, here)


def _mac(last):
    return bytes((2, 0, 0, 0, 0, last))


def _is_neighbourhood(frame):
    """Neighbour and router discovery, and multicast listeners' reports (which begin with a hop-by-hop header)."""
    return frame[20] == 0 or (frame[20] == 58 and len(frame) > 54 and frame[54] in (131, 132, 133, 134, 135, 136, 143))


def packet_socket(device):
    """A packet socket on a device of the namespace that the calling thread is in."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
    wire.bind((device, ETH_P_ALL))
    return wire
