"""How long the real director takes for a large configuration."""

import json
import time

from cells import Cell
from inside import millions
from lab.director import Director
from programs import config

REAL_SERVERS = 10


def document(services):
    """A configuration of so many services of ten real servers each: a hundred services a VIP, each real server another address."""
    def real_server(n):
        return {"address": f"10.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", "mac": f"02:00:01:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"}

    def service(n):
        members = [real_server(n * REAL_SERVERS + i) for i in range(REAL_SERVERS)]
        return {"protocol": "tcp", "address": f"10.10.{100 + n // 100}.1", "port": 8000 + n % 100, "scheduler": "wlc", "real_servers": members}

    return {"services": [service(n) for n in range(services)]}


def load(bench):
    """From PUT /api/v1/config to its answer, which comes when the state file is written and every worker runs the change."""
    services, times = (1000 if bench.quick else 10_000), []
    body = json.dumps(document(services))
    text = config(["net_null0,no-rx=1"], connections=65536, mbufs=16383, memory_mb=256, huge=bench.huge, services="")
    # Real servers must be on one of our networks.
    text = text.replace('addresses = ["10.10.24.10/24"]', 'addresses = ["10.255.0.10/8"]')
    for n in range(1 if bench.quick else 3):
        bench.say(f"time {n + 1}")
        with Director(bench.lab.director, text) as director:
            start = time.monotonic()
            status, answer = director.api.raw("PUT", "config", body, timeout=60)
            times.append(time.monotonic() - start)
            if status != 200:
                raise RuntimeError(f"PUT config answered {status}: {answer[:1000]}")
            (director.host.folder / "lib" / "baton" / "state.json").unlink(missing_ok=True)
    note = f"PUT /api/v1/config of {len(body) / 1e6:.1f} MB, kept on disk and run by the worker; slowest {max(times):.2f} s"
    return [Cell(f"{millions(services)} services of {REAL_SERVERS}", min(times), "s", 2, 0.5, False, times, note)]
