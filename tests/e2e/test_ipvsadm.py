"""The commands that people know, as they type them: `ipvsadm` is here the very binary under another name."""

import json
import re

import pytest

from lab import VIP, Director, Wire, config_text, count_servers, ready_binary

HEADER = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
"""

SAVED = f"""-A -t {VIP}:80 -s wrr
-a -t {VIP}:80 -r 10.10.24.21:80 -g -w 3
-a -t {VIP}:80 -r 10.10.24.22:80 -g -w 0
-A -u {VIP}:53 -s rr -o
-a -u {VIP}:53 -r 10.10.24.23:53 -g -w 1
-A -t [fd00:10::88]:80 -s wlc
-a -t [fd00:10::88]:80 -r [fd00:10::21]:80 -g -w 1
"""


def size_aside(text):
    """A listing with the table's size of the header replaced by IPVS's default."""
    return re.sub(r"\(size=\d+\)", "(size=4096)", text)


def say(director, line):
    """(status, standard output and error) of a line."""
    done = director.host.run(line, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def director(classic):
    """A director without services."""
    return classic.director


@pytest.fixture(scope="module")
def two_networks():
    """A director whose port is on both networks of the runbooks' lines."""
    with Wire() as lab:
        ready_binary(lab)
        addresses = ("10.10.24.10/24", "192.168.11.10/24", "fd00:10::10/64")
        with Director(lab.director, config_text(lab.device, addresses=addresses)) as running:
            yield running


def test_lines_from_runbooks_work_as_they_are(two_networks):
    for line in (
        "ipvsadm -A -t 10.10.24.88:80 -s rr",
        "ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -g",
        "ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.22 -g",
        "ipvsadm -A -t 192.168.11.100:80 -s wrr",
        "ipvsadm -a -t 192.168.11.100:80 -r 192.168.11.12 -g -w 2",
    ):
        assert say(two_networks, line) == (0, "")
    status, listing = say(two_networks, "ipvsadm -ln")
    assert status == 0
    assert size_aside(listing) == HEADER + """TCP  192.168.11.100:80 wrr
  -> 192.168.11.12:80             Route   2      0          0         
TCP  10.10.24.88:80 rr
  -> 10.10.24.21:80               Route   1      0          0         
  -> 10.10.24.22:80               Route   1      0          0         
"""


def test_port_of_a_real_server_is_silently_the_services(director):
    director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.10.24.21:8080 -g")
    assert "  -> 10.10.24.21:80  " in director.ipvsadm("-ln")


def test_default_scheduler_is_wlc_and_default_method_is_direct_routing(director):
    director.ipvsadm(f"-A -t {VIP}:80", f"-a -t {VIP}:80 -r 10.10.24.21")
    assert size_aside(director.ipvsadm("-Ln")) == HEADER + f"""TCP  {VIP}:80 wlc
  -> 10.10.24.21:80               Route   1      0          0         
"""


def test_saved_rules_are_restored(director):
    assert say(director, f"ipvsadm-restore <<'X'\n# a comment\n{SAVED}X") == (0, "")
    saved = director.run("ipvsadm-save -n")
    assert saved == SAVED
    assert director.run("ipvsadm -Sn") == SAVED
    assert say(director, "ipvsadm-save -n | ipvsadm-restore") == (0, "")
    assert director.run("ipvsadm-save -n") == SAVED


def test_faulty_restore_changes_nothing_and_names_the_line(director):
    director.run(f"ipvsadm-restore <<'X'\n{SAVED}X")
    status, said = say(director, f"printf '%s\\n' '-A -t {VIP}:81 -s rr' '-a -t {VIP}:99 -r 10.10.24.21 -g' | ipvsadm -R")
    assert status != 0 and "2" in said and "Service not defined" in said
    assert director.run("ipvsadm -Sn") == SAVED


def test_binary_answers_to_the_names_of_ipvsadm_and_to_its_own(director):
    for line in (f"ipvsadm -A -t {VIP}:80 -s rr", f"baton ipvsadm -a -t {VIP}:80 -r 10.10.24.21 -g"):
        assert say(director, line) == (0, "")
    assert director.run("baton ipvsadm -ln") == director.run("ipvsadm -ln")
    assert director.run("baton ipvsadm-save -n") == director.run("ipvsadm-save -n") == director.run("ipvsadm -S -n")


def test_every_scheduler_is_listed_saved_and_restored(director):
    options = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos", "sh -b sh-port",
               "mh -b mh-fallback,mh-port")
    rules = "".join(f"-A -t {VIP}:{port} -s {option}\n" for port, option in enumerate(options, 8001))
    for line in rules.splitlines():
        assert say(director, f"ipvsadm {line}") == (0, "")
    listing = director.ipvsadm("-Ln")
    for port, option in enumerate(options, 8001):
        name, _, flags = option.partition(" -b ")
        assert f"TCP  {VIP}:{port} {name}{f' ({flags})' if flags else ''}\n" in listing
    assert director.ipvsadm("-Sn") == rules
    assert say(director, f"ipvsadm -C && echo '{rules}' | ipvsadm -R && ipvsadm -Sn") == (0, rules)
    for wrong, status, words in (("-s sed2", 255, "Scheduler or persistence engine not found"), ("-s mh -b sh-port", 2, "incompatible scheduler flag")):
        code, said = say(director, f"ipvsadm -A -t {VIP}:80 {wrong}")
        assert (code, words in said) == (status, True), said
    assert director.ipvsadm("-Sn") == rules


@pytest.mark.parametrize("line, words", [
    (f"-A -t {VIP}:81 -s rr -p 300 --pe sip", "Scheduler or persistence engine not found"),
    ("--start-daemon master", "--start-daemon is not built"),
    ("--stop-daemon master", "No daemon is running"),
    ("--stop-daemon backup", "No daemon is running"),
])
def test_what_is_not_there_is_refused_as_the_kernel_refuses_it_or_by_name(director, line, words):
    director.ipvsadm(f"-A -t {VIP}:80 -s rr")
    before = director.run("ipvsadm -Sn")
    status, said = say(director, "ipvsadm " + line)
    assert status == 255 and words in said, said
    assert director.run("ipvsadm -Sn") == before
    assert director.run("ipvsadm -Ln --daemon") == "", "none is listed"


def test_stats_and_connections_are_listed_in_ipvsadms_columns(classic):
    director = classic.director
    director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.10.24.21 -g")
    count_servers(classic.client, VIP, 3)
    stats = director.ipvsadm("-ln --stats").splitlines()
    assert stats[1].split() == ["Prot", "LocalAddress:Port", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]
    words = stats[3].split()
    assert words[:3] == ["TCP", f"{VIP}:80", "3"] and int(words[3]) >= 15 and words[4] == words[6] == "0"
    rows = director.ipvsadm("-lnc").splitlines()
    assert rows[:2] == ["IPVS connection entries", "pro expire state       source             virtual            destination"]
    assert len(rows) == 5 and all(re.match(rf"TCP \d\d:\d\d  FIN_WAIT    203\.0\.113\.10:\d+\s+{VIP}:80\s+10\.10\.24\.21:80$", row) for row in rows[2:])
    assert director.ipvsadm("-ln --timeout").strip() == "Timeout (tcp tcpfin udp): 900 120 300"
    assert "CPS" in director.ipvsadm("-ln --rate")


def test_settings_are_set_shown_and_reset(director):
    director.run("baton settings set sloppy_tcp=1 timeout_udp=60")
    settings = director.api.get("settings")
    assert (settings["sloppy_tcp"], settings["timeout_udp"], settings["conn_reuse_mode"]) == (1, 60, 1)
    director.ipvsadm("--set 100 20 0")
    assert director.ipvsadm("-ln --timeout").strip() == "Timeout (tcp tcpfin udp): 100 20 60"
    for wrong in ("sloppy_tcp=2", "sloppy=1", "timeout_udp=never"):
        status, said = say(director, f"baton settings set {wrong}")
        assert status not in (0, 101) and wrong.partition("=")[0] in said
    director.run("baton settings reset")
    assert director.api.get("settings")["timeout_tcp"] == 900


@pytest.mark.parametrize("what", ["services", "connections", "workers", "ports", "neighbours"])
def test_get_prints_a_table_and_json(classic, what):
    classic.director.ipvsadm(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.10.24.21 -g")
    count_servers(classic.client, VIP, 1)
    table = classic.director.run(f"baton get {what}")
    assert len(table.splitlines()) >= 2
    assert json.loads(classic.director.run(f"baton get {what} -o json"))
    assert say(classic.director, f"baton get {what} | head -1")[0] == 0


def test_director_that_does_not_run_is_named(classic):
    status, said = say(classic.director, "baton --api unix:/run/nowhere.sock get services")
    assert status == 1 and "/run/nowhere.sock" in said
    status, said = say(classic.director, "BATON_API=unix:/run/nowhere.sock ipvsadm -ln")
    assert status == 255 and "/run/nowhere.sock" in said


def test_every_command_shows_an_example(director):
    for command in ("run", "check", "get", "connections flush", "settings set", "settings reset", "realserver apply", "realserver check",
                    "realserver undo", "completions"):
        said = director.run(f"baton {command} --help")
        assert re.search(r"example", said, re.IGNORECASE) and "baton " + command.split()[0] in said, command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_name_the_commands(director, shell):
    assert "realserver" in director.run(f"baton completions {shell}")
