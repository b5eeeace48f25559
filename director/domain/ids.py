"""Ids: a prefix that names the resource and 26 characters that sort by time."""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_PATTERN = re.compile(r"([a-z]+)_([0-9a-hjkmnp-tv-z]{26})")

SESSION, DEPARTMENT, WORKFLOW, RUN = "ses", "dep", "wf", "run"
CHECKPOINT, SANDBOX, EXECUTION, ARCHIVE = "ckp", "sbx", "exec", "arc"
EVENT, USER, REQUEST, CONNECTION = "evt", "usr", "req", "con"
NETWORK, POLICY, GRANT, PROFILE = "net", "pol", "grt", "prf"
CONTEXT, ITEM, MESSAGE = "ctx", "itm", "msg"


def new_id(prefix: str) -> str:
    """Make an id of 48 bits of milliseconds and 80 random bits, as a ULID has them."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_id(prefix: str, text: str) -> bool:
    """Tell whether `text` can be an id of ours with that prefix."""
    match = _PATTERN.fullmatch(text)
    return match is not None and match[1] == prefix
