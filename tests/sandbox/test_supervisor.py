"""What the shell reads that sees a command through to its end."""

import os
import subprocess
import time
from pathlib import Path

import director.sandbox

BUSYBOX = Path("/bin/busybox")
SUPERVISOR = Path(director.sandbox.__file__).with_name("supervisor.sh")

READER = """
. "$0"
exec 5<>"$1"
echo ready
clock
deadline=$((now + 1000))
next_event && echo "$kind $value"
"""


def test_an_event_is_whole_though_a_look_of_a_second_ends_while_it_is_read(tmp_path):
    """As where the reader lost its processor between two letters: `end` must not become `d`."""
    events = tmp_path / "events"
    os.mkfifo(events)
    words = [BUSYBOX, "sh", "-c", READER, SUPERVISOR, events]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"
        with events.open("wb", buffering=0) as pipe:
            pipe.write(b"en")
            time.sleep(1.3)  # nothing can be awaited: that time passes is what this is about
            pipe.write(b"d 3\n")
            assert reader.stdout.readline() == "end 3\n"
