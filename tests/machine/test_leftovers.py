"""What Docker adds to the firewall is taken out again, and nothing else."""

from director.machine.leftovers import parse_rules, undo

BEFORE = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A INPUT -s 10.0.0.0/8 -m comment --comment "the office" -j ACCEPT
COMMIT
"""
NOW = """*nat
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A INPUT -s 10.0.0.0/8 -m comment --comment "the office" -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -i br-0123456789ab -j ACCEPT
COMMIT
"""


def taken_out(before, now):
    return [" ".join(words) for words in undo(parse_rules(before), parse_rules(now))]


def test_rules_of_docker_go_before_the_chains_that_they_name():
    assert taken_out(BEFORE, NOW) == [
        "-t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "-t filter -D FORWARD -j DOCKER-USER",
        "-t filter -D FORWARD -i br-0123456789ab -j ACCEPT",
        "-t nat -F DOCKER",
        "-t filter -F DOCKER-USER",
        "-t nat -X DOCKER",
        "-t filter -X DOCKER-USER",
    ]


def test_rules_that_others_added_in_the_meantime_stay():
    assert not any("10.8.0.0/24" in line for line in taken_out(BEFORE, NOW))


def test_what_was_there_before_our_engine_stays():
    assert taken_out(NOW, NOW) == []


def test_a_comment_with_spaces_is_one_argument():
    now = BEFORE.replace("-A INPUT", '-A INPUT -i docker0 -m comment --comment "a b"', 1)
    (command,) = undo(parse_rules(BEFORE), parse_rules(now))
    assert "a b" in command
