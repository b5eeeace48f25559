"""Repositories from which a workspace is filled: what may be asked for, and what is shown of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from director.domain.addresses import Address, Range, literal, refusal
from director.domain.base import Body, PlacedError, Shape
from director.domain.errors import ValidationError
from director.domain.networks import checked_host

_PORT = 443
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]+")
_NOT_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def _url(text: str) -> str:
    """The URL with its host in lower case and without what says nothing. What is wrong is told
    without the URL: it may hold a password."""
    parts = _split(text)
    if parts.scheme != "https":
        raise PlacedError("must be an https URL, such as https://git.example.com/team/project.git")
    if "@" in parts.netloc:
        raise PlacedError(
            "must not name a user: credentials are not taken from the URL, and there are none yet,"
            " so that only repositories that everybody may read can be cloned"
        )
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise PlacedError("must not have a query or a fragment")
    if not parts.path.strip("/") or not _PATH.fullmatch(parts.path):
        raise PlacedError("must have the path of a repository, other characters written as %xx")
    host, port = _host(parts), _port_of(parts)
    return f"https://{host}{'' if port == _PORT else f':{port}'}{parts.path}"


def _split(text: str) -> SplitResult:
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise PlacedError(
            "must have only printable ASCII characters: names of hosts as xn--…, others as %xx"
        )
    try:
        return urlsplit(text)
    except ValueError as error:
        raise PlacedError(f"is no URL: {error}") from None


def _host(parts: SplitResult) -> str:
    try:
        return checked_host(parts.hostname or "")
    except ValueError as error:
        raise PlacedError(f"must name a host: {error}") from None


def _port_of(parts: SplitResult) -> int:
    try:
        port = _PORT if parts.port is None else parts.port
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise PlacedError("must have a port from 1 to 65535, or none")
    return port


def _ref(text: str) -> str:
    """A name of a branch, a tag or any ref, or the hash of a commit, as git has them."""
    if _COMMIT.fullmatch(text):
        return text.lower()
    parts = text.split("/")
    if (
        _NOT_IN_REFS.search(text)
        or text.startswith("-")
        or text.endswith(("/", "."))
        or text in ("", "@")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    ):
        raise ValueError("is no name of a branch or tag and no hash of a commit, as git has them")
    return text


GitUrl = Annotated[str, Field(max_length=2000), AfterValidator(_url)]
GitRef = Annotated[str, Field(max_length=240), AfterValidator(_ref)]


class GitSource(Body):
    """A repository to clone: a branch or tag by its name, any other ref as `refs/…`, a commit by
    its hash; without `ref` the branch that the repository has as its own."""

    url: GitUrl
    ref: GitRef | None = None

    @property
    def host(self) -> str:
        """The host to connect to, a name or an address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port to connect to."""
        return urlsplit(self.url).port or _PORT

    @property
    def exact(self) -> bool:
        """Whether `ref` means the same wherever it stands: a commit, or a ref with its path."""
        ref = self.ref or ""
        return ref.startswith("refs/") or _COMMIT.fullmatch(ref) is not None


def is_commit(text: str) -> bool:
    """Whether a text can be the hash of a commit."""
    return _COMMIT.fullmatch(text) is not None


@dataclass(frozen=True)
class GitTerms:
    """On which terms repositories are cloned."""

    image: str | None = None
    """The image in which git runs; None: the default one of sandboxes."""
    allowed: tuple[Range, ...] = ()
    """The addresses that may be connected to beside those of the public internet."""
    ca_file: Path | None = None
    """Certificates that are trusted beside those that the image trusts."""

    def refusal(self, address: Address) -> str | None:
        """Why an address is not connected to; None where it is."""
        why = refusal(address, self.allowed)
        return why and f"{why}, and DIRECTOR_GIT_ALLOWED_CIDRS does not have it"

    def check(self, source: GitSource | None) -> None:
        """Raise ValidationError where a repository is at an address that is never connected to."""
        address = literal(source.host) if source is not None else None
        why = self.refusal(address) if address is not None else None
        if why is not None:
            field, issue = "workspace.git.url", why
            detail = {"field": field, "issue": issue}
            message = f"Invalid input data: {field}: {issue}"
            raise ValidationError(message, **detail, errors=[detail])


class Cloned(Shape):
    """A repository that was cloned, as it was asked for, and the commit that was there then."""

    url: str
    ref: str | None = None
    commit: str
