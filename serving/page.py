"""The page `/demo`: files that `storefront/` was built to, read once and handed out as they are."""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from serving.doors import Refused

FILES = Path(__file__).with_name("demo")
"""Written by `npm run build` in `storefront/`."""

START = "index.html"
HASHED = "assets/"
"""Below it a file's name holds a digest of its content, so it may be kept for ever."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    cache: str


def read_files(folder: Path = FILES) -> Mapping[str, _File]:
    """Return the page's files by their paths below `/demo/`; nothing else can be asked for.

    A path of a request is looked up among them and never reaches the disk.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            cache = "public, max-age=31536000, immutable" if name.startswith(HASHED) else "no-cache"
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            found[name] = _File(path.read_bytes(), media_type, cache)
    return found


def routes(folder: Path = FILES) -> APIRouter:
    """Return the routes of the page."""
    files = read_files(folder)
    router = APIRouter(include_in_schema=False)

    @router.api_route("/demo", methods=["GET", "HEAD"])
    async def start(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"demo/{query}", 307, HEADERS)  # relative: right behind a proxy's prefix too

    @router.api_route("/demo/{path:path}", methods=["GET", "HEAD"])
    async def file(path: str) -> Response:
        found = files.get(path or START)
        if found is None:
            raise Refused(404, "not_found", "the page has no such file", HEADERS)
        return Response(found.content, headers=HEADERS | {"Cache-Control": found.cache}, media_type=found.media_type)

    return router
