"""Frames on a host's device, seen by a packet socket."""

import select
import socket
import time

ETH_P_ALL = 3
OUTGOING = 4


class Frame:
    """A frame as it was on the wire. `outgoing` means that the host sent it on this device."""

    __slots__ = ("bytes", "outgoing")

    def __init__(self, data, outgoing):
        self.bytes = data
        self.outgoing = outgoing

    @property
    def ether_type(self):
        """The ether type, as a number."""
        return int.from_bytes(self.bytes[12:14], "big")

    @property
    def protocol(self):
        """The IP protocol, or None."""
        if self.ether_type == 0x0800:
            return self.bytes[23]
        return self.bytes[20] if self.ether_type == 0x86DD else None

    @property
    def payload_offset(self):
        """Where TCP or UDP starts."""
        return 14 + (self.bytes[14] & 15) * 4 if self.ether_type == 0x0800 else 54

    @property
    def source(self):
        """The IP source as text, or None."""
        return self._address(26, 22)

    @property
    def destination(self):
        """The IP destination as text, or None."""
        return self._address(30, 38)

    def _address(self, four, six):
        if self.ether_type == 0x0800:
            return socket.inet_ntop(socket.AF_INET, self.bytes[four:four + 4])
        return socket.inet_ntop(socket.AF_INET6, self.bytes[six:six + 16]) if self.ether_type == 0x86DD else None

    @property
    def ports(self):
        """(source port, destination port) of TCP or UDP, or None."""
        if self.protocol not in (6, 17):
            return None
        at = self.payload_offset
        return int.from_bytes(self.bytes[at:at + 2], "big"), int.from_bytes(self.bytes[at + 2:at + 4], "big")


class Capture:
    """Takes every frame on a device from the moment it is made; also sends. A context manager."""

    def __init__(self, host, device):
        self.socket = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 64 << 20)
        self.socket.bind((device, ETH_P_ALL))
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends the capture."""
        self.socket.close()

    def send(self, *frames):
        """Sends frames (bytes)."""
        for frame in frames:
            self.socket.send(frame)

    def frames(self):
        """The frames that came since the last call."""
        found = []
        while True:
            try:
                data, address = self.socket.recvfrom(65536)
            except BlockingIOError:
                return found
            found.append(Frame(data, address[2] == OUTGOING))

    def wait(self, wanted, timeout=3.0):
        """Frames until one is `wanted` (a function of a Frame), that one last; an AssertionError when none comes in time."""
        seen, until = [], time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                listing = "\n  ".join(frame.bytes.hex() for frame in seen) or "none at all"
                raise AssertionError(f"the awaited frame did not come within {timeout} s; these did:\n  {listing}")
            data, address = self.socket.recvfrom(65536)
            seen.append(Frame(data, address[2] == OUTGOING))
            if wanted(seen[-1]):
                return seen
