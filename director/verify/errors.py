"""Finds the lines of an output that tell of an error.

A line does so when it begins (after blanks) with `error:`, `error[…]:`, `fatal:`, `panic:`,
`npm ERR!`, `npm error`, an exception's name and a colon (`ValueError:`, `java.io.IOException:`),
`Traceback (most recent call last)` or `Segmentation fault`; has `: error:`, `error TS123:` or
`: fatal error:` in it; or has ERROR, FATAL, CRITICAL or SEVERE in it as a word, as logs do.
`0 errors`, `no error`, `errors: 0` and the like are taken away before.
"""

import re2  # type: ignore[import-untyped]

_MARKER = re2.compile(
    r"^\s*(?:(?i:error|fatal|panic)(?:\[\w+\])?:\s*\S|npm (?:ERR!|error )"
    r"|(?:Uncaught )?[\w.$]*(?:Error|Exception)(?: \[\w+\])?:"
    r"|Traceback \(most recent call last\)|Segmentation fault|Unhandled\w* (?:error|rejection))"
    r"|: (?:fatal )?error:|\berror TS\d+:|\b(?:ERROR|FATAL|CRITICAL|SEVERE)\b"
)
_NONE = re2.compile(
    r"(?i)\b(?:0|no|zero|without)\s+(?:\w+\s+)?errors?\b|\berrors?\s*[:=]\s*(?:0|none)\s*(?:$|[,;)|])"
)


def error_line(text: str) -> str | None:
    """Give the first line that tells of an error, or None."""
    for line in text.split("\n"):
        if line and _MARKER.search(line) and _MARKER.search(_NONE.sub("", line)):
            return line
    return None
