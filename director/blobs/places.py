"""Where blobs are kept, by `DIRECTOR_BLOB_URL`."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from director.blobs.store import Blobs, LocalBlobs


def check_url(url: str) -> None:
    """Raise ValueError where no blobs can be kept at a URL."""
    found = urlsplit(url)
    if found.username or found.password or found.query or found.fragment:
        raise ValueError("it takes no credentials and no options: set the usual AWS_* variables")
    if found.scheme == "s3" and not found.netloc:
        raise ValueError("it names no bucket: write s3://BUCKET/PREFIX")
    if found.scheme == "file" and (found.netloc or not found.path.startswith("/")):
        raise ValueError("it is no absolute path: write file:///PATH")
    if found.scheme not in ("s3", "file"):
        raise ValueError("it begins neither with file:/// nor with s3://")


def open_blobs(url: str) -> Blobs:
    """The blobs at a URL: `file:///PATH` or `s3://BUCKET/PREFIX`. Raises ValueError."""
    check_url(url)
    found = urlsplit(url)
    if found.scheme == "file":
        return LocalBlobs(Path(unquote(found.path)))
    from director.blobs.s3 import S3Blobs  # loads a library that only this needs

    return S3Blobs(found.netloc, found.path.strip("/"))
