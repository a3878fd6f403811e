"""The REST API: what it takes, what it answers, and how it refuses."""

import json
import re

import pytest

from lab import VIP, VIP6, Problem, count_servers

SERVER = {"address": "10.10.24.21", "weight": 2}
SERVICE = {"protocol": "tcp", "address": VIP, "port": 80, "scheduler": "rr", "real_servers": [SERVER]}
ID = f"tcp:{VIP}:80"


@pytest.fixture
def api(classic):
    """The API of a director without services."""
    return classic.director.api


def refusal(work):
    """The Problem that `work` must raise."""
    with pytest.raises(Problem) as caught:
        work()
    problem = caught.value
    assert problem.document["status"] == problem.status and problem.document["title"] and problem.detail
    return problem


def test_service_lives_its_life(api):
    made = api.post("services", SERVICE)
    assert (made["id"], made["scheduler"], made["real_servers"][0]["weight"]) == (ID, "rr", 2)
    assert api.raw("POST", "services", json.dumps({**SERVICE, "port": 81}))[0] == 201
    assert api.patch(f"services/{ID}", {"scheduler": "wrr"})["scheduler"] == "wrr"
    assert api.raw("PUT", f"services/{ID}", json.dumps(SERVICE))[0] == 200
    assert api.raw("PUT", f"services/tcp:{VIP}:82", json.dumps({**SERVICE, "port": 82}))[0] == 201
    assert [service["port"] for service in api.get("services")["services"]] == [80, 81, 82]
    assert api.raw("DELETE", f"services/{ID}")[0] == 204
    assert api.raw("DELETE", "services")[0] == 204
    assert api.get("services")["services"] == []


def test_ipv6_id_is_a_path(api):
    api.post("services", {**SERVICE, "address": VIP6, "real_servers": [{"address": "fd00:10::21"}]})
    assert api.service(f"tcp:[{VIP6}]:80")["address"] == VIP6
    assert api.raw("GET", f"services/tcp:%5B{VIP6.replace(':', '%3A')}%5D:80")[0] == 200
    assert api.real_server(f"tcp:[{VIP6}]:80", "[fd00:10::21]:80")["address"] == "fd00:10::21"


def test_real_server_lives_its_life(api):
    api.post("services", {**SERVICE, "real_servers": []})
    assert api.raw("POST", f"services/{ID}/real-servers", json.dumps(SERVER))[0] == 201
    one = f"services/{ID}/real-servers/10.10.24.21:80"
    assert api.get(one)["weight"] == 2
    assert api.patch(one, {"weight": 0})["state"] == "quiescent"
    assert api.patch(one, {"weight": 5})["state"] == "ready"
    assert api.raw("PUT", f"services/{ID}/real-servers/10.10.24.22:80", json.dumps({"address": "10.10.24.22"}))[0] == 201
    assert [server["id"] for server in api.get(f"services/{ID}/real-servers")] == ["10.10.24.21:80", "10.10.24.22:80"]
    assert api.raw("DELETE", one)[0] == 204
    assert refusal(lambda: api.get(one)).kind == "no-such-real-server"


def test_counters_survive_a_change_of_weight_and_removal(classic, api):
    api.post("services", SERVICE)
    count_servers(classic.client, VIP, 4)
    one = f"services/{ID}/real-servers/10.10.24.21:80"
    assert api.patch(one, {"weight": 7})["stats"]["connections"] == 4
    api.delete(one)
    api.post(f"services/{ID}/real-servers", SERVER)
    assert api.get(one)["stats"]["connections"] == 4


def test_conflicts_and_absences_have_their_own_kinds(api):
    api.post("services", SERVICE)
    for work, status, kind in (
        (lambda: api.post("services", SERVICE), 409, "service-exists"),
        (lambda: api.post(f"services/{ID}/real-servers", SERVER), 409, "real-server-exists"),
        (lambda: api.get("services/tcp:10.10.24.99:80"), 404, "no-such-service"),
        (lambda: api.delete("services/tcp:10.10.24.99:80"), 404, "no-such-service"),
        (lambda: api.delete(f"services/{ID}/real-servers/10.10.24.99:80"), 404, "no-such-real-server"),
        (lambda: api.get("nothing-here"), 404, "not-found"),
        (lambda: api.call("PATCH", "workers", {}), 405, "method-not-allowed"),
    ):
        problem = refusal(work)
        assert (problem.status, problem.kind) == (status, kind)


BAD = [
    ("scheduler", {**SERVICE, "scheduler": "fastest"}, ["/scheduler"]),
    ("protocol", {**SERVICE, "protocol": "icmp"}, ["/protocol"]),
    ("port 0", {**SERVICE, "port": 0}, ["/port"]),
    ("port too high", {**SERVICE, "port": 65536}, ["/port"]),
    ("port negative", {**SERVICE, "port": -1}, ["/port"]),
    ("address", {**SERVICE, "address": "10.10.24"}, ["/address"]),
    ("vip multicast", {**SERVICE, "address": "224.0.0.5"}, ["/address"]),
    ("vip loopback", {**SERVICE, "address": "127.0.0.1"}, ["/address"]),
    ("vip unspecified", {**SERVICE, "address": "0.0.0.0"}, ["/address"]),
    ("vip is the dip", {**SERVICE, "address": "10.10.24.10"}, ["/address"]),
    ("ops for tcp", {**SERVICE, "one_packet": True}, ["/one_packet"]),
    ("unknown field", {**SERVICE, "colour": "blue"}, ["/colour"]),
    ("weight too high", {**SERVICE, "real_servers": [{**SERVER, "weight": 2**31}]}, ["/real_servers/0/weight"]),
    ("weight negative", {**SERVICE, "real_servers": [{**SERVER, "weight": -1}]}, ["/real_servers/0/weight"]),
    ("other family", {**SERVICE, "real_servers": [{"address": "fd00:10::21"}]}, ["/real_servers/0/address"]),
    ("not connected", {**SERVICE, "real_servers": [SERVER, {"address": "10.99.0.1"}]}, ["/real_servers/1/address"]),
    ("other port", {**SERVICE, "real_servers": [{**SERVER, "port": 8080}]}, ["/real_servers/0/port"]),
    ("mac", {**SERVICE, "real_servers": [{**SERVER, "mac": "02:00"}]}, ["/real_servers/0/mac"]),
    ("mac multicast", {**SERVICE, "real_servers": [{**SERVER, "mac": "01:00:5e:00:00:01"}]}, ["/real_servers/0/mac"]),
    ("our own mac", {**SERVICE, "real_servers": [{**SERVER, "mac": "02:10:10:10:10:10"}]}, ["/real_servers/0/mac"]),
    ("twice", {**SERVICE, "real_servers": [SERVER, SERVER]}, ["/real_servers/1"]),
    ("three faults", {**SERVICE, "port": 0, "address": "0.0.0.0", "real_servers": [{"address": "10.99.0.1"}]},
     ["/address", "/port", "/real_servers/0/address"]),
]


@pytest.mark.parametrize("document, pointers", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_refused_with_a_pointer_to_every_faulty_field(api, document, pointers):
    before = api.get("config")
    problem = refusal(lambda: api.post("services", document))
    assert (problem.status, problem.kind) == (422, "invalid")
    assert sorted(problem.pointers) == pointers
    assert api.headers["content-type"].startswith("application/problem+json")
    assert api.get("config") == before


def test_refusal_says_which_method_would_work(api):
    off = refusal(lambda: api.post("services", {**SERVICE, "real_servers": [{"address": "10.99.0.1"}]}))
    assert "tunnel" in json.dumps(off.document) and "masquerading" in json.dumps(off.document)
    port = refusal(lambda: api.post("services", {**SERVICE, "real_servers": [{**SERVER, "port": 8080}]}))
    assert "masquerading" in json.dumps(port.document)


@pytest.mark.parametrize("body, status, kind", [
    ("{", 400, "malformed"), ("", 400, "malformed"), ("[1,2", 400, "malformed"), ("nonsense", 400, "malformed"),
    ("{\"a\":" * 500 + "1" + "}" * 500, None, None), ("x" * (64 << 20), 413, "body-too-large"),
], ids=["cut", "empty", "cut list", "no json", "deep", "large"])
def test_broken_bodies_are_refused_and_the_director_goes_on(api, body, status, kind):
    try:
        got, text = api.raw("POST", "services", body)
        assert got == (status or got) and 400 <= got < 500
        assert kind is None or json.loads(text)["type"].endswith("/" + kind)
    except (BrokenPipeError, ConnectionResetError):
        assert kind == "body-too-large"
    assert api.raw("GET", "/readyz")[0] == 200


def test_whole_configuration_is_taken_all_or_nothing(api):
    good = {"services": [SERVICE, {**SERVICE, "protocol": "udp", "port": 53}], "settings": {"sloppy_tcp": 1}}
    api.put("config", good)
    assert len(api.get("services")["services"]) == 2
    kept = api.get("config")
    bad = {"services": [{**SERVICE, "port": 443}, {**SERVICE, "address": "0.0.0.0"}], "settings": {"sloppy_tcp": 9}}
    assert sorted(refusal(lambda: api.put("config", bad)).pointers) == ["/services/1/address", "/settings/sloppy_tcp"]
    assert api.get("config") == kept
    api.put("config", kept)
    assert {**api.get("config"), "revision": 0} == {**kept, "revision": 0}


def test_revision_grows_with_every_change_and_is_on_every_answer(api):
    api.get("services")
    before = int(api.headers["baton-revision"])
    api.post("services", SERVICE)
    after = int(api.headers["baton-revision"])
    assert after == before + 1
    assert {worker["version"] for worker in api.get("workers")} == {after}
    assert api.get("services")["revision"] == after


def test_workers_ports_and_health_are_shown(api):
    [worker] = api.get("workers")
    assert worker["id"] == 0 and worker["capacity"] > 0 and 0 <= worker["busy"] <= 1
    [port] = api.get("ports")
    assert port["name"] == "lan" and port["mac"] == "02:10:10:10:10:10" and port["link_up"] and port["queues"] == 1
    assert "10.10.24.10/24" in port["addresses"] and "af_packet" in port["driver"]
    assert api.raw("GET", "/livez")[0] == api.raw("GET", "/readyz")[0] == 200


def test_openapi_names_every_path(api):
    paths = api.get("openapi.json")["paths"]
    for path in ("services", "services/{id}", "services/{id}/real-servers", "connections", "workers", "ports", "neighbours", "settings", "config"):
        assert any(found.rstrip("/").endswith("/" + path) for found in paths), f"{path} is not in {sorted(paths)}"


def samples(api):
    """Metrics as {(name, labels): value}; every line must be Prometheus's text format."""
    status, text = api.raw("GET", "/metrics")
    assert status == 200
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            parts = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)( \d+)?", line)
            assert parts, line
            assert (parts[1], parts[2]) not in found, line
            found[parts[1], parts[2] or ""] = float(parts[3])
    return found


def test_metrics_are_prometheus_text_that_agrees_with_what_happened(classic, api):
    api.post("services", SERVICE)
    before = samples(api)
    count_servers(classic.client, VIP, 3)
    after = samples(api)
    assert all(name.startswith(("baton_", "process_")) for name, _ in after)
    moved = {key: value - before.get(key, 0) for key, value in after.items() if key[0].endswith("_total")}
    assert all(change >= 0 for change in moved.values()), moved
    assert [change for (name, labels), change in moved.items() if "connections" in name and VIP in labels and "10.10.24.21" in labels] == [3]
    forwarded = [change for (_, labels), change in moved.items() if 'verdict="forwarded"' in labels]
    assert forwarded and sum(forwarded) >= 9
