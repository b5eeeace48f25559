"""Blobs in a bucket of S3, or of anything that speaks as S3 does."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from director.blobs.store import Frames
from director.domain.errors import NotFoundError, UnavailableError

_MOST = 300
"""Characters of what the library says of an error."""


class S3Blobs(Frames):
    """Blobs as objects `PREFIX/ab/abcd…`. Endpoint, region and credentials come from the usual
    `AWS_*` variables; what fails on the way is tried again for a time.

    Raises UnavailableError where the bucket does not answer, or refuses us."""

    def __init__(
        self, bucket: str, prefix: str = "", *, patience: timedelta = timedelta(seconds=20)
    ) -> None:
        self._name = f"s3://{bucket}/{prefix}".rstrip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=60),
            },
            retry_config={"max_retries": 10, "retry_timeout": patience},
        )

    def names(self, older_than: timedelta) -> Iterator[str]:
        """Every blob that was written so long ago, in no order."""
        before = datetime.now(UTC) - older_than
        with self._told():
            for batch in obstore.list(self._store, chunk_size=1000):
                for found in batch:
                    if found["last_modified"] < before:
                        yield found["path"].rpartition("/")[2]

    def has(self, hash: str) -> bool:
        """Whether there is a blob of a name that is one."""
        try:
            with self._told():
                obstore.head(self._store, _path(hash))
        except FileNotFoundError:
            return False
        return True

    def _read(self, hash: str) -> bytes:
        try:
            with self._told():
                return bytes(obstore.get(self._store, _path(hash)).bytes())
        except FileNotFoundError:
            raise NotFoundError("blob", hash) from None

    def stage(self, hash: str, frame: bytes) -> None:
        """Write a frame; a bucket has it whole, and safe, or not at all."""
        with self._told():
            obstore.put(self._store, _path(hash), frame)

    def settle(self, staged: Mapping[str, Path | None]) -> None:
        """All is done."""

    def _remove(self, hash: str) -> None:
        with self._told(), suppress(FileNotFoundError):
            obstore.delete(self._store, _path(hash))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._away("has no bucket of that name", error) from None
            raise
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._away("refuses Director: check its credentials", error) from None
        except BaseError as error:
            raise self._away("does not answer as it should", error) from None

    def _away(self, how: str, error: Exception) -> UnavailableError:
        said = " ".join(str(error).split())[:_MOST]
        return UnavailableError(f"the blob store {self._name} {how} ({said})")


def _path(hash: str) -> str:
    return f"{hash[:2]}/{hash}"
