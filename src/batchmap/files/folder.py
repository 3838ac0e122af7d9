"""A folder of files that appears whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from batchmap.errors import BadValue


def write(out: str | Path, files: Mapping[str, bytes], overwrite: bool = False) -> Path:
    """Writes a new folder with these files and returns its path.

    files: relative name ("model.py", "data/x.npy") -> contents.
    overwrite: a folder that holds only files of these names (and __pycache__) may be replaced.
    Everything is written to a temporary folder beside `out` and renamed, so that no failure, not even an
    interrupt, leaves anything behind or an older folder changed.
    Raises BadValue where `out` has other contents or a name would lead out of the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = write(f"{place}/ported", {"model.py": b"x = 1"})
    ...     (folder / "model.py").read_text()
    'x = 1'
    """
    check(out, files, overwrite)
    out = Path(out)
    target = out.resolve()
    missing = [parent for parent in target.parents if not parent.exists()]  # innermost first
    mark = secrets.token_hex(4)
    temporary = target.with_name(f".{target.name}.{mark}.new")
    older = target.with_name(f".{target.name}.{mark}.old")
    done = False
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if target.exists():
            target.rename(older)
        temporary.rename(target)
        done = True
    except OSError as error:
        raise BadValue(
            f"{out} cannot be written", error.strerror or str(error), "give another out", field="out", value=out
        ) from error
    finally:
        if older.exists() and not target.exists():
            older.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            shutil.rmtree(older, ignore_errors=True)
        if not done:
            for parent in missing:
                _remove_empty(parent)
    return out


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        raise BadValue(f'"{name}" is no name of a file inside the folder', field="files", value=name)


def check(out: str | Path, files: Collection[str], overwrite: bool = False) -> None:
    """Raises BadValue where `write` would refuse these names or this folder; touches nothing."""
    for name in files:
        _check_name(name)
    target = Path(out).resolve()
    if not target.exists():
        return
    if not target.is_dir():
        raise BadValue(f"{out} cannot be written: it is a file", instead="give another out", field="out", value=out)
    found = sorted(place.relative_to(target) for place in target.rglob("*") if not place.is_dir())
    if found and not overwrite:
        raise BadValue(
            f"{out} cannot be written: it exists and holds {found[0].as_posix()}",
            instead="give another out, or overwrite=True",
            field="out",
            value=out,
        )
    ours = {PurePosixPath(name).as_posix() for name in files}
    for place in found:
        if place.as_posix() not in ours and "__pycache__" not in place.parts:
            raise BadValue(
                f"{out} cannot be replaced: it holds {place.as_posix()}, which is not written anew",
                instead="give another out, or move that file away",
                field="out",
                value=out,
            )


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # somebody else uses it by now, or it never came to be
        return
