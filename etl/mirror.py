"""Raw files from object storage to the folder that a landing reads: what changed is fetched; what an earlier call
brought and is gone there goes here too.

    s3://bucket/prefix · gs://bucket/prefix · abfs://container@account.dfs.core.windows.net/prefix · file:///folder

The addresses are Arrow's, and so are their options (`?endpoint_override=…&scheme=http&region=…`); credentials come from
where the provider's own tools find them, never from the address. An object is the same as the file of an earlier call
where size and instant agree; a file gets its name when it is whole.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from recsys.errors import RecsysError, UnusableInput

LIST = ".mirrored"
"""In the folder: the files that the latest call brought or kept."""
PIECE_BYTES = 8 << 20
SECRET = re.compile(r"(?<=//)[^/@]*:[^/@]*@")
"""A name and password within an address."""


def mirror(address: str, folder: Path) -> dict[str, Any]:
    """Bring what the address holds, and return the numbers of files: fetched, kept, removed.

    Other files of the folder stay as they are.

    Raises:
        RecsysError: the address is none, or carries a password.
        UnusableInput: nothing is there, or the store refuses.
    """
    if SECRET.search(address):
        raise RecsysError("address", SECRET.sub("…@", address), "Leave credentials to the provider's own configuration")
    try:
        store, root = fs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, ValueError) as error:
        raise RecsysError("address", address, f"{error}. Use s3://, gs://, abfs:// or file://") from error
    try:
        found = [one for one in store.get_file_info(fs.FileSelector(root, recursive=True)) if one.is_file]
        if not found:
            raise UnusableInput(address, "no file is there", "Name the folder that holds the raw files")
        kept = {_place(folder, root, one.path): one for one in found}
        fetched = sum(_fetch(store, one, path) for path, one in kept.items())
    except OSError as error:  # Arrow's errors of every store are this
        raise UnusableInput(address, " ".join(str(error).split())[:300], "Look at address and permissions") from error
    listed = folder / LIST
    known = json.loads(listed.read_text()) if listed.is_file() else []
    stale = [folder / name for name in known if folder / name not in kept]
    for path in stale:
        path.unlink(missing_ok=True)
    listed.write_text(json.dumps(sorted(str(path.relative_to(folder)) for path in kept), indent=0))
    return {"folder": str(folder), "fetched": fetched, "kept": len(kept) - fetched, "removed": len(stale)}


def _place(folder: Path, root: str, path: str) -> Path:
    """Return where an object goes, below the folder whatever its name says."""
    parts = Path(path).relative_to(root).parts
    if ".." in parts:
        raise UnusableInput(path, "its name leads out of the folder", "Rename the object")
    return folder.joinpath(*parts)


def _fetch(store: fs.FileSystem, one: fs.FileInfo, path: Path) -> bool:
    """Bring an object unless its file is there; return whether it was brought."""
    if path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) == (one.size, one.mtime_ns):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    with store.open_input_stream(one.path, compression=None) as source, draft.open("wb") as target:
        while piece := source.read(PIECE_BYTES):
            target.write(piece)
    if draft.stat().st_size != one.size:
        raise UnusableInput(one.path, f"{draft.stat().st_size} of {one.size} bytes came", "Run it again")
    os.utime(draft, ns=(one.mtime_ns, one.mtime_ns))
    draft.replace(path)
    return True
