"""Turns what people hand in, a tar, a zip or a map of files, into a tree of blobs.

Nothing is unpacked to a disk: each member goes from the stream to the blobs."""

import bz2
import gzip
import io
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable
from typing import IO, cast

import zstandard

from director.blobs.contents import Contents
from director.blobs.members import ArchiveError, ArchiveLimits, Members
from director.blobs.store import CHUNK, Blobs, Reader, Rejoined, read_fully
from director.blobs.tars import read_tar
from director.blobs.zips import read_zip
from director.domain.trees import Tree

__all__ = ["ArchiveError", "ArchiveLimits", "files_tree", "read_archive"]

FILES_MTIME_NS = 315_532_800 * 10**9
"""1980-01-01 for files that come without a time: the same files make the same tree, and zip and
wheel writers refuse anything earlier."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_XZ_MEMORY = 256 * 1024**2
_BLOCK = 64 * 1024
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def read_archive(stream: Reader, blobs: Blobs, limits: ArchiveLimits | None = None) -> Tree:
    """Read a tar (plain, gzip, bzip2, xz, zstd) or a zip, told apart by content, not by name.

    Paths are resolved and must stay within the tree, so must symbolic links; hard links become
    copies; the last of two members of one path wins. Raises ArchiveError for everything else."""
    with Contents(blobs) as contents:
        members = Members(contents, limits or ArchiveLimits())
        _read(stream, members)
        return members.tree()


def _read(stream: Reader, members: Members) -> None:
    head = read_fully(stream, 6)
    rejoined = Rejoined(head, stream)
    if not head:
        raise ArchiveError("it is empty")
    if head.startswith(_ZIP):
        _read_zip(rejoined, stream, members)
    else:
        decoder = next((make for magic, make in _DECODERS.items() if head.startswith(magic)), None)
        read_tar(_Decoded(decoder(rejoined)) if decoder else rejoined, members)


def files_tree(files: dict[str, str], blobs: Blobs, limits: ArchiveLimits | None = None) -> Tree:
    """Make a tree of texts by path. What starts with `#!` may be executed.

    Raises ArchiveError naming the path, by the rules of archives; a path may not come twice."""
    with Contents(blobs) as contents:
        members = Members(contents, limits or ArchiveLimits(), what="workspace.files")
        for path, text in files.items():
            _add_text(members, path, text)
        return members.tree()


def _add_text(members: Members, path: str, text: str) -> None:
    raw = path.encode("utf-8", "surrogatepass")
    if path.endswith("/"):
        raise members.refused(raw, "ends with '/', which names a folder, not a file")
    if members.has(raw):
        raise members.refused(raw, "is there twice, spelled differently")
    if not (_is_unicode(path) and _is_unicode(text)):
        raise members.refused(raw, "holds half a surrogate pair, which is no text")
    mode = 0o755 if text.startswith("#!") else 0o644
    members.add_file(raw, io.BytesIO(text.encode()), mode, FILES_MTIME_NS)


def _is_unicode(text: str) -> bool:
    return _HALF_PAIR.search(text) is None


def _read_zip(rejoined: Reader, stream: Reader, members: Members) -> None:
    seekable = getattr(stream, "seekable", None)
    if seekable is not None and seekable():
        read_zip(cast("IO[bytes]", stream), members)
        return
    with tempfile.TemporaryFile() as file:
        while chunk := rejoined.read(CHUNK):
            file.write(chunk)
            if file.tell() > members.limits.max_bytes:
                raise ArchiveError(f"it is larger than {members.limits.max_bytes} bytes itself")
        read_zip(file, members)


class _Decoded:
    """A compressed stream's plain bytes, with the decoders' errors told as ours."""

    def __init__(self, decoder: Reader) -> None:
        self._decoder = decoder

    def read(self, size: int, /) -> bytes:
        try:
            return self._decoder.read(size)
        except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise self._damaged(error) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ArchiveError:
        return ArchiveError(f"its compressed data is damaged or cut off ({error})")


class _Xz:
    """xz with a bound on memory, which the standard library's file does not have."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._decoder = self._new()

    def read(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data or self._stream.read(_BLOCK)
                if not data.strip(b"\0"):
                    return b""
                self._decoder = self._new()
            elif self._decoder.needs_input and not (data := self._stream.read(_BLOCK)):
                raise EOFError("unexpected end of data")
            if plain := self._decoder.decompress(data, size):
                return plain

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _zstd(stream: Reader) -> Reader:
    decoder = zstandard.ZstdDecompressor(max_window_size=2**27)
    return cast("Reader", decoder.stream_reader(cast("IO[bytes]", stream), read_across_frames=True))


_DECODERS: dict[bytes, Callable[[Reader], Reader]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=cast("IO[bytes]", stream)),
    b"BZh": lambda stream: bz2.BZ2File(cast("IO[bytes]", stream)),
    b"\xfd7zXZ\x00": _Xz,
    b"\x28\xb5\x2f\xfd": _zstd,
}
