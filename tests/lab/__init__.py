"""Networks made of namespaces, with real clients, a real router, real web servers and the real director.

Python's standard library only. Root is needed, for namespaces and raw sockets; nothing outside the lab's own namespaces, its own processes and its
own folder below /tmp is touched.
"""

from . import frames
from .api import Api, Problem
from .capture import Capture
from .director import Director, config_text, ready_binary
from .lab import Lab, LabError
from .load import KeepAlive, connect, count_servers, fetch, wrk
from .topology import DIP, DIP6, PUBLIC, ROUTER, VIP, VIP6, Classic, TapWire, Wire

__all__ = [
    "Api", "Capture", "Classic", "DIP", "DIP6", "Director", "KeepAlive", "Lab", "LabError", "PUBLIC", "Problem", "ROUTER", "VIP", "VIP6", "TapWire", "Wire",
    "config_text", "connect", "count_servers", "fetch", "frames", "ready_binary", "wrk",
]
