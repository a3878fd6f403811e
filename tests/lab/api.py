"""A client of the director's REST API over its unix socket."""

import contextlib
import http.client
import json
import socket
import time
from urllib.parse import quote


class Problem(AssertionError):
    """The API refused; `status`, `kind` (the last word of its type), `detail` and `pointers` say why."""

    def __init__(self, method, path, status, document):
        self.status = status
        self.document = document if isinstance(document, dict) else {}
        self.kind = self.document.get("type", "").rpartition("/")[2]
        self.detail = self.document.get("detail", "")
        self.pointers = [fault["pointer"] for fault in self.document.get("errors", [])]
        super().__init__(f"{method} {path} answered {status}: {document}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


NO_VERDICTS = ("received", "sent", "icmp_errors", "resets", "fragments", "injected", "handed_over", "taken_over", "sent_by_others",
               "sent_for_others")


def verdicts(counters):
    """The verdicts among counters: each received frame has exactly one."""
    return {name: number for name, number in counters.items() if name not in NO_VERDICTS}


class Api:
    """One director's API. Paths are given below /api/v1; those that start with a slash as they are."""

    def __init__(self, path):
        self.path = path
        self.headers = {}

    def raw(self, method, path, body=None, content_type="application/json", timeout=10):
        """Sends one request; returns (status, text). The answer's headers are in `headers`."""
        connection = _UnixConnection(self.path, timeout)
        try:
            full = path if path.startswith("/") else "/api/v1/" + path
            body = body.encode() if isinstance(body, str) else body
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # A server may answer before it has read the body, and read no further.
                connection.request(method, full, body, {"Content-Type": content_type} if body is not None else {})
            answer = connection.getresponse()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def call(self, method, path, document=None, timeout=10):
        """Sends one request with a document; returns the answer's document, or raises Problem."""
        status, text = self.raw(method, path, None if document is None else json.dumps(document), timeout=timeout)
        answer = json.loads(text) if text and "json" in self.headers.get("content-type", "") else text or None
        if status >= 400:
            raise Problem(method, path, status, answer)
        return answer

    def get(self, path):
        """GET."""
        return self.call("GET", path)

    def put(self, path, document):
        """PUT."""
        return self.call("PUT", path, document)

    def post(self, path, document=None):
        """POST."""
        return self.call("POST", path, document)

    def patch(self, path, document):
        """PATCH."""
        return self.call("PATCH", path, document)

    def delete(self, path):
        """DELETE."""
        return self.call("DELETE", path)

    # -- what tests ask again and again -----------------------------------------------------------------------------------------------------

    def service(self, key):
        """One virtual service, by its natural key."""
        return self.get("services/" + quote(key, safe=":[]"))

    def real_server(self, key, server):
        """One real server of a virtual service."""
        return self.get(f"services/{quote(key, safe=':[]')}/real-servers/{quote(server, safe=':[]')}")

    def connections(self, **filters):
        """All matching connection entries, page by page."""
        entries, query = [], {"limit": 1000, **filters}
        while True:
            page = self.get("connections?" + "&".join(f"{name}={quote(str(value), safe=':[]')}" for name, value in query.items()))
            entries += page["connections"]
            if not page.get("next"):
                return entries
            query["cursor"] = page["next"]

    def settled_counters(self, received=0, patience=3.0):
        """`counters`, once at least `received` frames came and nothing moves any more; as they are when `patience` seconds are over."""
        until, last = time.monotonic() + patience, None
        while (now := self.counters()) != last or now.get("received", 0) < received:
            if time.monotonic() > until:
                break
            last = now
            time.sleep(0.05)
        return now

    def counters(self):
        """Frames over all workers: {"received": n, "sent": n, "icmp_errors": n, "injected": n, VERDICT: n, ...}, zeros left out."""
        total = {}
        for worker in self.get("workers"):
            pairs = [(name, worker[name]) for name in NO_VERDICTS] + list(worker["verdicts"].items())
            for name, number in pairs:
                total[name] = total.get(name, 0) + number
        return {name: number for name, number in total.items() if number}
