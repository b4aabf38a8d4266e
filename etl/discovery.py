"""Which raw files a landing reads."""

from collections.abc import Sequence
from pathlib import Path

from etl import packaged
from etl.files import RawFiles, Source, folders, merged
from etl.sources import SOURCES, movielens
from recsys.errors import RecsysError
from recsys.settings import Settings

Found = tuple[Source, RawFiles]


def discover(settings: Settings, domains: Sequence[str]) -> list[Found]:
    """Return the files of every source of these domains, in a fixed order.

    They come from `settings.data_dir`, searched to a depth of four folders. Without that setting the domain movies
    takes the sample that comes with a package. Made-up data are never an answer.

    Raises:
        RecsysError: a domain has no data; says what to put where.
        UnusableInput: an official file is there and cannot be used.
    """
    found: list[Found] = []
    for domain in domains:
        sources = [source for source in SOURCES if domain == source.DOMAIN]
        here = [pair for source in sources for pair in _of(source, settings)]
        if not here:
            wanted = "; or ".join(source.WANTED for source in sources)
            place = settings.data_dir or "no folder is set"
            raise RecsysError(
                f"raw data of the domain {domain}", place, f"Set RECSYS_DATA_DIR to a folder that holds {wanted}"
            )
        found.extend(here)
    return found


def _of(source: Source, settings: Settings) -> list[Found]:
    root = settings.data_dir
    if root is None:
        if source is not movielens:
            return []
        root = packaged.write_packaged_sample(settings.var_dir / "downloads")
    if not Path(root).is_dir():
        raise RecsysError("RECSYS_DATA_DIR", root, "There is no such folder; name the one that holds the raw files")
    return [(source, files) for files in merged([f for folder in folders(root) for f in source.discover(folder) or ()])]
