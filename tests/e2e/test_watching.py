"""What watches the director: metrics, dashboard and alerts as Prometheus's own tools judge them, and the log as machines read it."""

import contextlib
import html.parser
import json
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from lab import VIP, Director, config_text
from lab.topology import REPOSITORY

CONFIGS = REPOSITORY / "configs"
SERVICE = {"protocol": "tcp", "address": VIP, "port": 80, "health": {"type": "tcp"}, "real_servers": [{"address": "10.10.24.21"}]}


def promtool(*words, stdin=None):
    """Runs promtool, which must find nothing wrong."""
    done = subprocess.run(["promtool", *map(str, words)], input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not stdin or not done.stdout + done.stderr, done.stdout + done.stderr


@pytest.fixture(scope="module")
def scraped(classic_module):
    """{query: the text of /metrics} of a director with a checked real server."""
    api = classic_module.director.api
    api.post("services", SERVICE)
    texts = {query: api.raw("GET", f"/metrics{query}") for query in ("", "?compat=node_ipvs")}
    assert {status for status, _ in texts.values()} == {200}
    return {query: text for query, (_, text) in texts.items()}


@pytest.mark.parametrize("query", ["", "?compat=node_ipvs"], ids=["own", "node_ipvs"])
def test_promtool_finds_no_fault_in_the_metrics(scraped, query):
    promtool("check", "metrics", stdin=scraped[query])


def test_rings_and_mempools_are_in_the_metrics(scraped):
    found = dict(line.rsplit(" ", 1) for line in scraped[""].splitlines() if not line.startswith("#"))
    assert float(found['baton_ring_capacity_frames{kind="to_kernel",name="lan"}']) > 0
    assert 'baton_ring_frames{kind="from_kernel",name="lan"}' in found
    # net_af_packet takes a buffer only when a frame comes, so there may be none in use.
    [(name, used)] = [(name, float(value)) for name, value in found.items() if name.startswith("baton_mempool_buffers_in_use{")]
    assert 0 <= used < float(found[name.replace("_in_use", "")])


def expressions():
    """Every expression of dashboard and alerts, without Grafana's variables."""
    dashboard = json.loads((CONFIGS / "grafana-dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    found += [re.search(r"label_values\((.*), \w+\)", variable["definition"])[1] for variable in dashboard["templating"]["list"] if "definition" in variable]
    assert len(found) > 30
    return [expr.replace("$__rate_interval", "1m") for expr in found]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(scraped):
    exported = set(re.findall(r"^# TYPE (\w+)", scraped[""], re.M)) | {"baton_health_check_delay_seconds_bucket"}
    asked = "\n".join(expressions()) + (CONFIGS / "alerts.yml").read_text()
    asked = set(re.findall(r"\bbaton_\w+", asked))
    assert len(asked) > 30 and not asked - exported, sorted(asked - exported)


def test_labels_that_dashboard_and_alerts_ask_for_are_there(scraped):
    known = set(re.findall(r'[{,](\w+)="', scraped[""])) | {"job", "instance", "le", "local_mark", "vip", "mac", "real_server"}
    asked = " ".join(expressions()) + (CONFIGS / "alerts.yml").read_text()
    used = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", asked) for label in labels.split(",")}
    used |= set(re.findall(r'[{,](\w+)(?:=~|!=|=)"', asked)) | set(re.findall(r"\$labels\.(\w+)", asked))
    assert not used - known, sorted(used - known)


def test_promtool_takes_the_alerts_and_the_dashboards_expressions(tmp_path):
    promtool("check", "rules", CONFIGS / "alerts.yml")
    promtool("test", "rules", REPOSITORY / "tests" / "e2e" / "alerts_test.yml")
    rules = [{"record": f"panel:{at}", "expr": expr} for at, expr in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "panels.yml")


def test_every_alert_says_what_to_do():
    rules = (CONFIGS / "alerts.yml").read_text()
    assert rules.count("- alert:") == rules.count("summary:") == rules.count("runbook:") == rules.count("severity:")


def test_log_is_an_object_a_line_when_asked_for(lonely):
    director = Director(lonely.director, config_text(lonely.device, gateways=()))
    director.env = {"BATON_LOG_FORMAT": "json"}
    with director:
        lines = [json.loads(line) for line in director.log().splitlines() if line.startswith("{")]
    assert {"timestamp", "level", "target", "message"} <= set(lines[0])
    assert any(line["message"] == "the director runs" and line["level"] == "INFO" for line in lines)


def fields(entry):
    """An entry of the journal's native protocol as {name: value}."""
    found = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            [length] = struct.unpack("<Q", entry[:8])
            value, entry = entry[8:8 + length], entry[9 + length:]
        found[name.decode()] = value.decode()
    return found


@contextlib.contextmanager
def journal_of(host, room):
    """The journal's socket on a host, with room for so many entries that nobody has read, and a director there as systemd starts it."""
    host.sysctl("net.unix.max_dgram_qlen", room)
    folder = host.folder / "run" / "systemd" / "journal"
    folder.mkdir(parents=True)
    with host.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(folder / "socket"))
        director = Director(host, config_text(host.lab.device, gateways=()))
        director.words = ["/bin/sh", "-c", 'JOURNAL_STREAM=$(stat -Lc %d:%i /dev/fd/2) exec "$@"', "sh", *director.words]
        yield journal, director


def test_log_goes_to_the_journal_with_its_fields_when_systemd_has_made_stderr_the_journals(lonely):
    entries = []

    def read(journal):
        with contextlib.suppress(OSError):
            while entry := journal.recv(1 << 16):
                entries.append(fields(entry))

    with journal_of(lonely.director, 512) as (journal, director):
        reader = threading.Thread(target=read, args=(journal,))
        reader.start()
        try:
            with director:
                until = time.monotonic() + 20
                while not any(entry.get("BATON_KIND") == "started" for entry in entries):
                    assert time.monotonic() < until, entries
                    time.sleep(0.05)
        finally:
            journal.shutdown(socket.SHUT_RDWR)
            reader.join()
        assert "the director runs" not in director.log()
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"baton"} and {entry["PRIORITY"] for entry in entries} <= {"4", "6"}
    [started] = [entry for entry in entries if entry.get("BATON_KIND") == "started"]
    assert started["PRIORITY"] == "6" and started["MESSAGE"].endswith(" kind=started") and started["TARGET"].startswith("control::")


def test_journal_that_stands_still_holds_nothing_up_and_is_told_what_it_missed(lonely):
    with journal_of(lonely.director, 4) as (journal, director), director:
        for seconds in range(100, 110):
            director.api.patch("settings", {"timeout_udp": seconds})
        journal.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while journal.recv(1 << 16):
                pass
        director.api.patch("settings", {"timeout_udp": 99})
        missed, told = fields(journal.recv(1 << 16)), fields(journal.recv(1 << 16))
        assert missed["PRIORITY"] == "4" and "lines of the log are lost" in missed["MESSAGE"], missed
        assert told["BATON_KIND"] == "configuration-changed"
        assert director.stop() == 0


@pytest.mark.parametrize("name, value", [("BATON_LOG_FORMAT", "xml"), ("BATON_LOG", "control=loud")])
def test_log_settings_that_mean_nothing_are_refused_by_name(lonely, name, value):
    done = lonely.director.run(["env", f"{name}={value}", "baton", "run", "--config", "/nowhere"], check=False)
    assert done.returncode == 1 and f"{name} is '{value}'" in done.stderr


class Rows(html.parser.HTMLParser):
    """The rows of a page's tables, each a list of its cells' texts."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_dashboard_shows_what_the_api_says_without_scripts(classic_module, scraped):
    api = classic_module.director.api
    status, page = api.raw("GET", "/ui")
    found = Rows(page)
    assert status == 200 and not found.tags & {"script", "link", "img", "iframe"}
    assert "default-src 'none'" in api.headers["content-security-policy"]
    [service] = api.get("services")["services"]
    [row] = [row for row in found.rows if row[0] == service["id"]]
    assert row[1] == service["scheduler"] and row[3].endswith("of 1 ready")
    [row] = [row for row in found.rows if row[0] == "\u2192 10.10.24.21:80"]
    assert row[2] == "1" and row[3] in ("ready", "down", "no MAC") and row[12] == "lan"
    assert any(row[0] == "lan" and row[3] == "up" for row in found.rows), "ports"
    assert any(row[1:2] == ["started"] for row in found.rows), "events"


def test_errors_of_check_and_of_a_start_have_stable_codes(lonely):
    host = lonely.director
    (host.folder / "faulty.toml").write_text("x = 1\n")
    with Director(host, config_text(lonely.device, gateways=())) as director:
        for words, code in (
            (["check", "--config", "/nowhere"], "[unreadable-file]"),
            (["check", "--config", host.folder / "faulty.toml"], "[faulty-configuration]"),
            (["run", "--config", host.folder / "faulty.toml"], "[faulty-configuration]"),
            (["run", "--config", director.config_path], 'code="in-use"'),
        ):
            done = host.run(["baton", *words], check=False)
            assert done.returncode == 1 and code in done.stderr, (words, done.stderr)
    listed = [code["code"] for code in json.loads(host.run("baton errors -o json").stdout)]
    assert {"unreadable-file", "faulty-configuration", "in-use"} <= set(listed)
