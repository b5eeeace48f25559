"""`director doctor` tells in a line what is missing and what to do."""

import io
import socket

import pytest
from rich.console import Console

from director.cli.doctor import Check, checks, port_check, print_doctor


def printed(*found):
    console = Console(file=io.StringIO(), width=200)
    return print_doctor(found, console), console.file.getvalue()


def test_something_needed_that_is_missing_fails_and_says_what_to_do():
    code, text = printed(Check("supervisor", False, "no C compiler", "install [it]"))
    assert code == 1
    assert text.split() == [
        "missing",
        *["supervisor", "no", "C", "compiler", "→", "install", "[it]"],
    ]


def test_something_optional_that_is_missing_is_only_a_note():
    code, text = printed(Check("nftables", False, "not installed", needed=False))
    assert (code, text.split()[0]) == (0, "note")


def test_what_is_there_needs_no_remedy():
    code, text = printed(Check("engine", True, "Docker 20", "start it"))
    assert code == 0
    assert "start it" not in text


def test_a_port_of_another_program_is_named_as_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        elsewhere = port_check("API", taken, tmp_path)
    assert "python" in elsewhere.detail or "another" in elsewhere.detail
    assert port_check("API", taken, tmp_path).detail == "free for API"


@pytest.mark.docker
def test_every_need_is_looked_at_and_the_engine_is_found(tmp_path):
    found = {check.name: check for check in checks(tmp_path, ports={})}
    expected = {"python", "temporal", "engine", "live-restore", "sandbox image", "supervisor"}
    limits = {f"sandbox {what}" for what in ("limits", "swap", "filter", "disks")}
    assert expected | {"user", "cgroups", "disk", "nftables"} | limits == found.keys()
    assert found["engine"].ok
    assert found["temporal"].ok
