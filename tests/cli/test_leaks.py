"""What `make test` says was left behind was left by that very run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "leaks.py"
LISTENER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def load():
    spec = importlib.util.spec_from_file_location("leaks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_process_of_the_run_is_named_with_the_port_that_it_holds(tmp_path):
    leaks = load()
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER],
        env=os.environ | {leaks.MARK: "this-run"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        port = child.stdout.readline().strip()
        (line,) = leaks.leaks("this-run", tmp_path, None)
        assert f"process {child.pid}, listening on {port}:" in line
        assert leaks.leaks("another-run", tmp_path, None) == []
        child.stdin.close()
    assert leaks.leaks("this-run", tmp_path, None) == []
