"""Draining a real server: its connections go on, new ones go elsewhere; at the deadline they stay, are reset or end."""

import subprocess

import pytest
from networks import configure

from lab import VIP
from lab.load import connect

KEY = f"tcp:{VIP}:80"
REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


def held(network, server):
    """A connection that this real server serves."""
    for _ in range(12):
        connection = connect(network.client, VIP)
        connection.settimeout(5)
        if exchange(connection).endswith(server.name.encode()):
            return connection
        connection.close()
    raise AssertionError(f"no connection went to {server.name}")


def exchange(connection):
    """A request and its whole answer."""
    connection.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(4096)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(4096)
    return body.strip()


def served(network, times=6):
    """Who answers new connections."""
    return {network.client.run(["curl", "-s", "-m5", f"http://{VIP}/"]).stdout.strip() for _ in range(times)}


def drain(network, server, *more, check=True):
    return network.director.host.run(["baton", "drain", KEY, server.address, *more], check=check)


def test_drained_real_server_keeps_its_connections_and_gets_no_new_ones(classics):
    configure(classics, VIP)
    server, others = classics.servers[0], {"rs2", "rs3"}
    with held(classics, server) as connection:
        said = drain(classics, server, "--deadline", "300s").stdout
        assert "connections left" in said and "deadline in" in said and "then keep" in said
        assert served(classics) == others
        assert exchange(connection) == server.name.encode(), "the old connection goes on"
        shown = classics.director.api.real_server(KEY, f"{server.address}:80")
        assert shown["state"] == "draining" and shown["drain"]["connections"] >= 1 and shown["weight"] == 1
        assert shown["drain"]["estimated_end_in"] <= 300 and "oldest_at_least" in shown["drain"]
        assert f"{server.address}:80 of {KEY}: draining since" in classics.director.host.run(["baton", "get", "services"]).stdout
    drain(classics, server, "--cancel")
    assert served(classics) == others | {server.name}
    assert drain(classics, server, "--cancel", check=False).returncode == 1


def test_wait_shows_progress_and_the_exit_code_says_how_it_ended(classic):
    configure(classic, VIP)
    server = classic.servers[0]
    done = drain(classic, server, "--deadline", "60s", "--wait")
    assert done.returncode == 0 and "drained" in done.stdout
    drain(classic, server, "--cancel")
    with held(classic, server) as connection:
        kept = drain(classic, server, "--deadline", "1s", "--wait", check=False)
        assert kept.returncode == 3 and "were kept" in kept.stdout, kept.stdout
        assert exchange(connection) == server.name.encode()
        drain(classic, server, "--cancel")
        words = ["baton", "drain", KEY, server.address, "--deadline", "60s", "--wait"]
        waiting = classic.director.host.start(words, stdout=subprocess.PIPE, text=True)
        assert "connections left" in waiting.stdout.readline()
        drain(classic, server, "--cancel")
        assert waiting.wait(timeout=10) == 4


def test_connections_that_are_left_at_the_deadline_are_reset(classics):
    configure(classics, VIP)
    server = classics.servers[0]
    with held(classics, server) as connection:
        drain(classics, server, "--deadline", "0s", "--then", "reset")
        state = classics.director.api.get(f"services/{KEY}/real-servers/{server.address}:80/drain")
        while state["state"] == "waiting":
            state = classics.director.api.get(f"services/{KEY}/real-servers/{server.address}:80/drain")
        with pytest.raises(ConnectionResetError):
            exchange(connection)
            exchange(connection)
    done = drain(classics, server, "--deadline", "0s", "--then", "reset", "--wait")
    assert done.returncode == 0 and not classics.director.api.connections(server=server.address)
    assert served(classics) == {"rs2", "rs3"}


def test_drain_is_still_in_force_after_a_restart(classic):
    configure(classic, VIP)
    server = classic.servers[0]
    drain(classic, server, "--deadline", "60s")
    classic.director.stop()
    classic.director.start()
    assert served(classic) == {"rs2", "rs3"}
    assert "started anew" in drain(classic, server, "--status").stdout
    drain(classic, server, "--cancel")
    assert served(classic) == {"rs1", "rs2", "rs3"}
