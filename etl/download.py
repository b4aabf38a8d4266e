"""Fetching raw files from the providers' sites: resumed where it broke off, compared with the published sum, complete
or not there at all.

A file grows as `<name>.part` and gets its name when it is whole. What is there already is not fetched again.
"""

import hashlib
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import tenacity
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from etl.catalogue import PROVIDERS, Remote, releases_of
from recsys.errors import RecsysError, ServiceUnavailable, UnusableInput

ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
BROKEN = (httpx.TransportError,)  # no connection, or one that broke: worth another attempt
MD5 = re.compile(r"\b[0-9a-fA-F]{32}\b")
Wait = Callable[[tenacity.RetryCallState], float]
PATIENCE = tenacity.wait_exponential(multiplier=1, max=30)  # seconds


def download(
    source: str,
    names: Sequence[str],
    target: Path,
    client: httpx.Client,
    console: Console,
    wait: Wait = PATIENCE,
) -> dict[str, Any]:
    """Fetch releases of a source into `target` and return what is there now. Prints the licence first.

    Raises:
        RecsysError: the source is not published over HTTP, or has no such release; says what to put where.
        ServiceUnavailable: the site cannot be reached or does not have the file.
        UnusableInput: a file is not the one whose sum is published, or no archive.
    """
    provider = PROVIDERS[source]
    console.print(f"[bold]{source}[/bold]: {provider.licence}")
    by_hand = f"{provider.by_hand}: {target.resolve()}"
    wanted = [(name, remote) for name, remotes in releases_of(source, list(names)) for remote in remotes]
    if not wanted:
        raise RecsysError(f"download of {source}", "there is no file to fetch", by_hand)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    files = []
    with Progress(*columns, console=console) as progress:
        for name, remote in wanted:
            path = target / remote.place
            is_new = not _is_there(remote, name, target)
            if is_new:
                _fetch(client, remote, path, progress, wait, by_hand)
            if path.suffix == ".zip" and path.exists():
                _unpack(path, target)
            files.append({"file": remote.place, "fetched": is_new})
    return {"source": source, "folder": str(target), "files": files, "licence": provider.licence}


def _is_there(remote: Remote, release: str, target: Path) -> bool:
    if remote.name.endswith(".zip"):
        return (target / release).is_dir()
    return (target / remote.place).is_file()


def _fetch(client: httpx.Client, remote: Remote, path: Path, progress: Progress, wait: Wait, by_hand: str) -> None:
    """Write the file whole, or raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    task = progress.add_task(remote.name, total=None)
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=wait,
        retry=tenacity.retry_if_exception_type(BROKEN),
        reraise=True,
    )
    try:
        retrying(
            _append, client, remote.url, draft, lambda done, total: progress.update(task, completed=done, total=total)
        )
        expected = _published_sum(retrying(client.get, remote.md5_url), remote) if remote.md5_url else None
    except httpx.HTTPError as error:
        fault = str(error).split("\n")[0] or type(error).__name__
        raise ServiceUnavailable(remote.url, f"it cannot be fetched ({fault})", by_hand) from error
    if expected and (found := _md5(draft)) != expected:
        draft.unlink()
        raise UnusableInput(remote.url, f"its MD5 sum is {found}, published is {expected}", "Fetch it again")
    draft.rename(path)


def _append(client: httpx.Client, url: str, draft: Path, tell: Callable[[int, int | None], None]) -> None:
    """Append to the draft what it lacks; begin anew where the server does not continue or the file is another one.

    The file's tag is kept beside the draft: a server continues only that very file (RFC 9110, If-Range).
    """
    tag = draft.with_suffix(".tag")
    done = draft.stat().st_size if draft.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if done and tag.exists():
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text()}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            draft.unlink(missing_ok=True)  # longer than the file: not its beginning
            tag.unlink(missing_ok=True)
            raise httpx.ReadError("the server cannot continue this file; it is fetched from its beginning")
        if response.is_server_error:
            raise httpx.ReadError(f"the server answers {response.status_code}")
        response.raise_for_status()
        continues = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = done if continues else 0
        if name := response.headers.get("ETag"):
            tag.write_text(name)
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with draft.open("ab" if continues else "wb") as file:
            for chunk in response.iter_raw():  # as it comes, so that what came is kept
                file.write(chunk)
                done += len(chunk)
                tell(done, total)
    if total is not None and done != total:
        raise httpx.ReadError(f"the connection broke off after {done} of {total} bytes")
    tag.unlink(missing_ok=True)


def _published_sum(response: httpx.Response, remote: Remote) -> str:
    response.raise_for_status()
    found = MD5.search(response.text)
    if found is None:
        raise UnusableInput(remote.md5_url or remote.url, "it holds no MD5 sum", "Compare by hand, then unpack by hand")
    return found[0].lower()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the archive's folders into `target` and remove it; nothing of a damaged one stays."""
    draft = target / f".{archive.stem}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(draft)
    except zipfile.BadZipFile as error:
        shutil.rmtree(draft, ignore_errors=True)
        archive.unlink()
        raise UnusableInput("archive", archive, f"It is damaged ({error}); fetch it again") from error
    for folder in sorted(path for path in draft.iterdir() if path.is_dir() and not path.name.startswith("__")):
        shutil.rmtree(target / folder.name, ignore_errors=True)
        folder.rename(target / folder.name)
    shutil.rmtree(draft)
    archive.unlink()
