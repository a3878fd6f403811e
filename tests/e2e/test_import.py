"""baton import: services of ipvsadm, keepalived and ldirectord, from their files to a running director; their own samples."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from lab import Director, config_text
from lab.director import binary

RULES = """-A -t 10.10.24.88:80 -s wlc
-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g -w 3
-a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -w 1
-A -t 10.10.24.89:443 -s wrr -p 600 -M 255.255.255.0
-a -t 10.10.24.89:443 -r 10.10.24.23:8443 -m -w 2
-A -u 10.10.24.88:53 -s rr -o
-a -u 10.10.24.88:53 -r 10.10.24.21:53 -g -w 0
"""

KEEPALIVED = """! the same for keepalived
$WEB=10.10.24.88
virtual_server $WEB 80 {
    lb_algo wlc
    lb_kind DR
    real_server 10.10.24.21 80 {
        weight 3
    }
    real_server 10.10.24.22 80 {
        weight 1
    }
}
include conf.d/*.conf
virtual_server $WEB 53 {
    protocol UDP
    ops
    lvs_sched rr
    lvs_method DR
    real_server 10.10.24.21 53 {
        weight 0
    }
}
"""

KEEPALIVED_INCLUDED = """virtual_server 10.10.24.89 443 {
    lvs_sched wrr
    persistence_timeout 600
    persistence_granularity 255.255.255.0
    real_server 10.10.24.23 8443 {
        weight 2
    }
}
"""

LDIRECTORD = """virtual = 10.10.24.88:80
    real = 10.10.24.21:80 gate 3
    real = 10.10.24.22:80 gate 1
    scheduler = wlc
    checktype = on
virtual = 10.10.24.89:443
    real = 10.10.24.23:8443 masq 2
    scheduler = wrr
    persistent = 600
    netmask = 255.255.255.0
    checktype = on
virtual = 10.10.24.88:53
    real = 10.10.24.21:53 gate 0
    scheduler = rr
    protocol = udp
    ops = yes
    checktype = on
"""


def baton(*words, text=None):
    """The program without a lab."""
    return subprocess.run([binary(), *words], input=text, capture_output=True, text=True, timeout=60, check=False)


def in_any_order(rules):
    """Services with their real servers, whatever the order of the services."""
    blocks = []
    for line in rules.splitlines():
        if line.startswith("-A"):
            blocks.append([])
        blocks[-1].append(line)
    return sorted(blocks)


@pytest.mark.parametrize("kind, text", [("ipvsadm", RULES), ("keepalived", KEEPALIVED), ("ldirectord", LDIRECTORD)])
def test_director_started_from_what_was_imported_lists_the_same_services(lonely, tmp_path, kind, text):
    base, source = tmp_path / "base.toml", tmp_path / "source"
    base.write_text(config_text(lonely.device, gateways=()))
    source.write_text(text)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.conf").write_text(KEEPALIVED_INCLUDED)
    done = baton("import", "--config", base, source)
    assert (done.returncode, done.stderr) == (0, "carried over: 3 virtual services, 4 real servers; lines left out: 0, changed: 0\n"), done.stderr
    with Director(lonely.director, done.stdout) as director:
        assert in_any_order(director.ipvsadm("-Sn")) == in_any_order(RULES)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """The packages' own samples, unpacked; nothing is installed, so no service is started."""
    folder = tmp_path_factory.mktemp("samples")
    folder.chmod(0o755)
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "keepalived", "ldirectord"]
    done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True, timeout=300)
        subprocess.run(download, cwd=folder, check=True, capture_output=True, timeout=300)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder / "usr" / "share" / "doc"


# What a line that is carried over begins with.
CARRIED = {
    "keepalived": """virtual_server virtual_server_group real_server lb_algo lb_kind lvs_sched lvs_method persistence_timeout protocol
        delay_loop weight quorum hysteresis sorry_server inhibit_on_failure virtualhost TCP_CHECK HTTP_GET SSL_GET PING_CHECK connect_timeout
        connect_port connect_ip retry delay_before_retry url path status_code host fwmark global_defs""".split(),
    "ldirectord": """virtual real checktimeout checkinterval quiescent service scheduler protocol checktype checkport request receive
        virtualhost""".split(),
}


def lines_not_named(path, report):
    """First words of the lines of a sample that the report does not name; comments, blank lines and braces are nobody's."""
    named = {remark["line"] for remark in report["remarks"] if Path(remark["file"]) == path}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.replace("=", " ").split()
        # Members of a group begin with their addresses.
        if words and words[0][0] not in "#!{}" and not re.match(r"[\da-f:.-]+$", words[0]) and number not in named:
            yield words[0]


def test_samples_of_keepalived_and_ldirectord_parse_or_are_named_line_by_line(samples, tmp_path):
    found = {
        "keepalived": sorted((samples / "keepalived" / "samples").glob("keepalived.conf.*")),
        "ldirectord": [samples / "ldirectord" / "examples" / "ldirectord.cf"],
    }
    assert len(found["keepalived"]) >= 25
    services = 0
    for kind, paths in found.items():
        for path in paths:
            done = baton("import", "--json", path)
            assert done.returncode in (0, 1), f"{path.name}: {done.stderr}"
            report = json.loads(done.stderr)
            services += report["services"]
            assert all(remark["reason"] and remark["text"] for remark in report["remarks"])
            silent = set(lines_not_named(path, report)) - set(CARRIED[kind])
            assert not silent, f"{path.name}: neither carried over nor named: {silent}"
            written = tmp_path / "written.toml"
            written.write_text(done.stdout)
            check = baton("check", "--config", written)
            assert check.returncode == 0, f"{path.name}: {check.stderr}"
    assert services > 25


def test_what_cannot_be_read_ends_with_2_and_writes_nothing(tmp_path):
    for words, text in ((["/nonexistent"], None), (["-"], "<xml/>"), (["--from", "ipvsadm", "-"], "-A\0"), (["-"], "x" * (17 << 20)),
                        (["--config", "/nonexistent", "-"], RULES)):
        done = baton("import", *words, text=text)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr, words
