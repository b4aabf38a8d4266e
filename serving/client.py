"""A typed client of the API, for programs: needs httpx and the contracts, nothing of the server.

    with Client("http://127.0.0.1:18080", key="rsi_…") as client:
        client.recommend("ml-1m:17", k=5)
        client.report(NewEvent(user_id="ml-1m:17", item_id="movielens:1196", domain="movies", event_type="click"))

`report` fills in an event id before it sends, so that sending again after a fault counts once.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel

from serving.contracts import (
    Accepted,
    Answer,
    ErrorAnswer,
    Fault,
    ManyAnswers,
    NewEvent,
    SimilarItems,
    WantedFor,
    WantedForMany,
    WantedForSession,
)
from serving.explanation import RequestRecord

Content = TypeVar("Content", bound=BaseModel)
TIMEOUT_SECONDS = 3.0
UNREADABLE = Fault(code="unreadable", message="the answer is none of this API's")


class ApiError(Exception):
    """The API said no; `fault.code` says why (docs/api.md)."""

    def __init__(self, status: int, fault: Fault):
        self.status, self.fault = status, fault
        super().__init__(f"{status} {fault.code}: {fault.message}")


class Client:
    """One connection pool to one API. Not for use by several threads at once while closing."""

    def __init__(self, url: str, key: str | None = None, http: httpx.Client | None = None):
        """Take the address and perhaps an API key.

        Args:
            http: a client to use in place of our own, for proxies, certificates and tests; its base URL is set.
        """
        self._http = http or httpx.Client(timeout=TIMEOUT_SECONDS)
        self._http.base_url = url
        if key is not None:
            self._http.headers["Authorization"] = f"Bearer {key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def recommend(
        self,
        user_id: str,
        k: int = 10,
        domain: str | None = None,
        items: Sequence[str] = (),
        device: str | None = None,
        location: str | None = None,
    ) -> Answer:
        """Return a list for a user; `items` is the session, oldest first, device and location are its context.

        Raises:
            ApiError: the API refused. httpx.TransportError: it did not answer.
        """
        wanted: dict[str, str | int | list[str]] = {"k": k}
        told = {"domain": domain, "device": device, "location": location}
        wanted |= {name: value for name, value in told.items() if value is not None}
        if items:
            wanted["items"] = list(items)
        return self._get(f"/v1/users/{quote(user_id, safe='')}/recommendations", Answer, wanted)

    def recommend_many(self, requests: Sequence[WantedFor]) -> list[Answer]:
        """Return one answer for each request, in their order; at most 100."""
        return self._post("/v1/recommendations:batch", WantedForMany(requests=list(requests)), ManyAnswers).answers

    def recommend_session(self, wanted: WantedForSession) -> Answer:
        """Return a list for a session of nobody in particular."""
        return self._post("/v1/sessions/recommendations", wanted, Answer)

    def similar(self, item_id: str, k: int = 10) -> SimilarItems:
        """Return the items most like one."""
        return self._get(f"/v1/items/{quote(item_id, safe='')}/similar", SimilarItems, {"k": k})

    def explain(self, request_id: str) -> RequestRecord:
        """Return what an earlier answer was made of."""
        return self._get(f"/v1/requests/{quote(request_id, safe='')}", RequestRecord, {})

    def report(self, event: NewEvent) -> str:
        """Report what a user did; return the event's id, with which it may be reported again."""
        named = event if event.event_id else event.model_copy(update={"event_id": uuid4().hex})
        return self._post("/v1/events", named, Accepted).event_id

    def _get(self, path: str, kind: type[Content], wanted: dict) -> Content:
        return self._read(self._http.get(path, params=wanted), kind)

    def _post(self, path: str, content: BaseModel, kind: type[Content]) -> Content:
        body = content.model_dump_json(exclude_none=True)
        return self._read(self._http.post(path, content=body, headers={"Content-Type": "application/json"}), kind)

    @staticmethod
    def _read(answer: httpx.Response, kind: type[Content]) -> Content:
        if answer.is_success:
            return kind.model_validate_json(answer.content)
        try:
            fault = ErrorAnswer.model_validate_json(answer.content).error
        except ValueError:  # a proxy's page, most likely
            fault = UNREADABLE
        raise ApiError(answer.status_code, fault)
