"""Members of a zip file, read into memory within limits; nothing is ever unpacked to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from batchmap.errors import BadFile
from batchmap.files.archive import bad, check_size, opened

MOST_MEMBERS = 10_000
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # the two whose output zipfile bounds as it reads
ENCRYPTED = 0x1


def names(path: str | Path) -> list[str]:
    """Lists the members of a zip file; raises BadFile where one of them is refused."""
    with _checked(path) as (_, members):
        return list(members)


def read(path: str | Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Reads those wanted members that the zip file has; raises BadFile where it is damaged or refused."""
    with _checked(path) as (archive, members):
        return {name: archive.read(members[name]) for name in wanted if name in members}


@contextmanager
def _checked(path: str | Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            yield archive, _members(archive, path)
    except BadFile:
        raise
    except Exception as error:  # zipfile answers damage with many of the built-in exceptions
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise bad(path, f"the zip file is damaged ({reason})", "copy or save the file again") from error


def _members(archive: zipfile.ZipFile, path: str | Path) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    if len(archive.infolist()) > MOST_MEMBERS:
        raise bad(path, f"it holds more than {MOST_MEMBERS} members")
    for member in archive.infolist():
        name = member.filename
        part = f'member "{name}"'
        if name in found:
            raise bad(path, f"{part} stands in it twice", part=part)
        if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
            raise bad(path, f"{part} points outside the archive", part=part)
        if member.flag_bits & ENCRYPTED:
            raise bad(path, f"{part} is encrypted", "decrypt the archive first", part=part)
        if member.compress_type not in METHODS:
            raise bad(path, f"{part} is packed by something else than deflate", "zip it again", part=part)
        check_size(path, part, member.file_size, member.compress_size)
        found[name] = member
    return found
