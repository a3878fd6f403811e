"""`baton doctor`: the machine and every real server on the path, with and without a running director."""

import json
import time

from networks import configure

from lab import VIP, VIP6, Director, config_text

KEY = f"tcp:{VIP}:80"


def doctor(director, *more):
    return director.host.run(["baton", "doctor", "--config", director.config_path, *more], check=False)


def findings(director):
    done = doctor(director, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode == 1) == any(finding["level"] == "FAIL" for finding in report["findings"]), report
    return done.returncode, report


def about(report, word, level=None):
    return [finding for finding in report["findings"] if word in finding["about"] and level in (None, finding["level"])]


def test_doctor_finds_this_machine_and_every_real_server_fit(classic):
    configure(classic, VIP)
    configure(classic, VIP6)
    classic.director.api.patch(f"services/{KEY}", {"health": {"type": "tcp", "interval": "200ms"}})
    # Those that are checked for the first time are waited for.
    code, report = findings(classic.director)
    assert code == 0 and report["running"], [finding for finding in report["findings"] if finding["level"] == "FAIL"]
    # Of each real server: its MAC, that it answers, and that it does not answer for the VIP.
    for server in classic.servers:
        assert [finding["level"] for finding in about(report, f"{KEY} {server.address}:80")] == ["OK"] * 3
        [unknown] = about(report, f"[{server.address6}]:80", "WARN")
        assert "has no check" in unknown["text"] and unknown["mend"].startswith("curl ")
    for word in ("hugepages", "IOMMU", "port lan", "queues of port lan", "core isolation", "governor", "memlock", "MTU of port lan", "state file", "clock"):
        assert about(report, word), word
    assert all(finding["level"] == "OK" or finding["mend"] for finding in report["findings"])
    shown = doctor(classic.director)
    assert shown.returncode == 0 and "OK    director: it runs, with 2 services" in shown.stdout


def test_doctor_names_the_real_server_that_answers_for_the_vip_or_lost_it(classic):
    configure(classic, VIP)
    server = classic.servers[0]
    classic.director.api.patch(f"services/{KEY}", {"health": {"type": "tcp", "interval": "200ms", "timeout": "200ms"}})
    server.ip(f"address del {VIP}/32 dev lo")
    try:
        until = time.monotonic() + 15
        while time.monotonic() < until and not about(findings(classic.director)[1], f"{KEY} {server.address}:80", "FAIL"):
            time.sleep(0.2)
        code, report = findings(classic.director)
        [failed] = about(report, f"{KEY} {server.address}:80", "FAIL")
        assert code == 1 and failed["mend"] == f"on {server.address}: baton realserver check --vip {VIP}"
    finally:
        server.run(["baton", "realserver", "apply", "--vip", VIP, "--vip", VIP6])


def test_doctor_works_before_the_director_runs(lonely):
    director = Director(lonely.director, config_text(lonely.device))
    code, report = findings(director)
    assert code == 0 and not report["running"], report
    assert report["findings"][0]["level"] == "WARN" and report["findings"][0]["about"] == "director"
    missing = Director(lonely.director, config_text("net_af_packet0,iface=nosuch0"))
    code, report = findings(missing)
    assert code == 1 and "there is no network interface 'nosuch0'" in about(report, "device", "FAIL")[0]["text"]
    missing.config_path.write_text("[[port]]\nname = 7\n")
    code, report = findings(missing)
    assert code == 1 and about(report, "configuration", "FAIL")[0]["mend"].startswith("baton check")
