"""`baton plan`: what it writes is what the director starts with; and what does not fit is refused before anything is touched."""

import re

from lab import DIP, DIP6, ROUTER, Director, config_text


def plan(host, *words, check=True):
    return host.run(["baton", "plan", *words], check=check)


def test_planned_configuration_is_without_faults_and_starts(lonely):
    host = lonely.director
    text = plan(host, "--port", lonely.device, "--workers", "1", "--connections", "100K", "--address", f"{DIP}/24", "--address", f"{DIP6}/64",
                "--gateway", ROUTER).stdout
    assert re.search(r"^# +\d+ MiB for connections \(1 worker x 100K x 60 bytes\)$", text, re.M), text
    file = host.folder / "planned.toml"
    file.write_text(text)
    assert "no faults" in host.run(["baton", "check", "--config", file]).stdout
    with Director(host, text) as director:
        assert director.api.get("ports")[0]["addresses"] == [f"{DIP}/24", f"{DIP6}/64"]


def test_plan_names_a_device_that_is_not_there(lonely):
    done = plan(lonely.director, "--port", "0000:ff:1f.7", check=False)
    assert done.returncode == 1 and "there is no PCI device 0000:ff:1f.7" in done.stderr and not done.stdout


def test_connections_that_do_not_fit_are_refused_with_the_arithmetic(lonely):
    # A third of a TiB.
    text = re.sub(r"cores = \[.*?\]", f"cores = {[1] * 24}", config_text(lonely.device)).replace("connections = 262144", 'connections = "250M"')
    status, said = Director(lonely.director, text).fails_to_start()
    assert status == 1
    assert "343323 MiB for connections (24 workers x 250M x 60 bytes)" in said and "give limits.connections = " in said, said
