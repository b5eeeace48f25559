"""Ports that are claimed before somebody listens there."""

import socket
import subprocess
import sys

import pytest

from director.cli.stack import Ports, StackError
from director.machine.ports import Claims


def test_two_that_start_at_once_never_choose_the_same_ports():
    said: list[str] = []
    with Claims() as first, Claims() as second:
        wanted = Ports(first.any(), first.any(), first.any())
        moved = wanted.claimed(second, said.append)
        assert not {wanted.api, wanted.temporal, wanted.ui} & {moved.api, moved.temporal, moved.ui}
    assert len(said) == 3
    assert f"port {wanted.temporal} is taken by another program" in said[1]


def test_whoever_claimed_a_port_may_listen_there_and_it_counts_as_taken_without_a_claim():
    with Claims() as claims:
        port = claims.any()
        with socket.create_server(("127.0.0.1", port)):
            claims.close()
            with Claims() as others:
                assert not others.take(port)


def test_a_claim_ends_with_the_process_that_held_it_though_it_was_killed():
    with Claims() as claims:
        port = claims.any()
    program = (
        "import os, signal\n"
        "from director.machine.ports import Claims\n"
        f"assert Claims().__enter__().take({port})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    with Claims() as claims:
        assert claims.take(port)


def test_the_api_s_port_never_moves_where_clients_know_it():
    with Claims() as others, Claims() as claims:
        wanted = Ports(others.any(), claims.any(), claims.any())
        with pytest.raises(StackError, match=f"DIRECTOR_PORT={wanted.api + 1}"):
            wanted.claimed(claims, lambda _: None, api_fixed=True)
