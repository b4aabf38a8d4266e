"""Which raw files a landing reads."""

from collections.abc import Sequence
from pathlib import Path

from etl import packaged
from etl.files import RawFiles, Source, folders, merged
from etl.sources import SOURCES, movielens, synthetic
from recsys.errors import RecsysError
from recsys.settings import Settings

Found = tuple[Source, RawFiles]


def discover(settings: Settings, domains: Sequence[str]) -> list[Found]:
    """Return the files of every source of these domains, in a fixed order.

    They come from `settings.data_dir`, searched to a depth of four folders. Without that setting the domain movies
    takes the sample that comes with a package. Made-up data are never an answer to that, and never stand beside real
    ones in a domain, in these files or in other partitions of the lake, unless `settings.mix_synthetic` says so.

    Raises:
        RecsysError: a domain has no data, or real and made-up ones; says what to do.
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
        if not settings.mix_synthetic:
            refuse_mixture(domain, {files.source for _, files in here}, settings.lake)
        found.extend(here)
    return found


def refuse_mixture(domain: str, sources: set[str], lake: str) -> None:
    """Raise RecsysError where real and made-up rows would stand in one domain.

    Looked at are the sources of this landing and those that the lake keeps in daily partitions; `history`, which every
    landing of another source replaces, does not count.
    """
    kept = Path(lake, "interactions", f"domain={domain}").glob("source=*/partition=[0-9]*")
    everywhere = sources | {folder.parent.name.removeprefix("source=") for folder in kept}
    if synthetic.NAME in everywhere and len(everywhere) > 1:
        real = ", ".join(sorted(everywhere - {synthetic.NAME}))
        way_out = "Take the one or the other away, or set RECSYS_MIX_SYNTHETIC=true"
        raise RecsysError(f"domain {domain}", f"real rows ({real}) beside made-up ones", way_out)


def _of(source: Source, settings: Settings) -> list[Found]:
    root = settings.data_dir
    if root is None:
        if source is not movielens:
            return []
        root = packaged.write_packaged_sample(settings.var_dir / "downloads")
    if not Path(root).is_dir():
        raise RecsysError("RECSYS_DATA_DIR", root, "There is no such folder; name the one that holds the raw files")
    return [(source, files) for files in merged([f for folder in folders(root) for f in source.discover(folder) or ()])]
