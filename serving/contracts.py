"""What the API takes and gives, as its OpenAPI document shows it."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from recsys.schemas import Domain, EventType, Identifier, Interaction, event_id

MAX_K = 1000
MAX_SESSION = 100
MAX_INSTANCES = 100
MAX_SESSION_ID = 248
"""So that `session:<id>` is an identifier too."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STREAM_SOURCE = "stream"
"""Source of events that arrive at this door, part of their deterministic id."""


def split_commas(values: Any) -> Any:
    """`a,b` as a query writes lists; anything else is for the type to judge."""
    if isinstance(values, str):
        values = [values]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return [part for value in values for part in value.split(",") if part]
    return values


def no_text(value: Any) -> Any:
    """A number as JSON writes it: neither a text nor true."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


def no_number(value: Any) -> Any:
    """An instant as a text: a number, or a text that is nothing else, would be taken for seconds."""
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip("+-. ").replace(".", "").isdigit()):
        raise ValueError("must be a text such as 2026-11-22T10:15:00Z")
    return value


class _Given(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WantedList(_Given):
    """How long a list is wanted, and of what."""

    k: int = Field(10, ge=1, le=MAX_K, description="length of the list; beyond the catalogue, all there is")
    domain: Domain | None = Field(None, description="only items of this domain")


class Wanted(WantedList):
    """What kind of list is wanted."""

    items: Annotated[list[Identifier], BeforeValidator(split_commas)] = Field(
        [],
        max_length=MAX_SESSION,
        description="the session: items just looked at, oldest first, comma-separated; unknown ones are ignored",
        examples=[["movielens:1193", "movielens:661"]],
    )
    device: Identifier | None = Field(
        None, description="what it is shown on, for contexts of the serving graph", examples=["tv"]
    )
    location: Identifier | None = Field(
        None, description="where it is shown, for contexts of the serving graph", examples=["DE"]
    )


class _WantedInBody(Wanted):
    """The same as JSON says it: types are what they are, and a comma is part of an id."""

    k: Annotated[int, BeforeValidator(no_text)] = Field(
        10, ge=1, le=MAX_K, description="length of the list; beyond the catalogue, all there is"
    )
    items: list[Identifier] = Field(
        [],
        max_length=MAX_SESSION,
        description="the session: items just looked at, oldest first; unknown ones are ignored",
        examples=[["movielens:1193", "movielens:661"]],
    )


class WantedFor(_WantedInBody):
    """What kind of list is wanted, and for whom: one request at a cloud's door."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ml-1m:17", "k": 10, "domain": "movies", "items": []}]}
    )

    user_id: Identifier


class WantedForSession(_WantedInBody):
    """What kind of list is wanted for a session of nobody in particular."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"session_id": "5a1c", "items": ["movielens:1193", "movielens:661"], "k": 10}]}
    )

    session_id: Identifier | None = Field(
        None, max_length=MAX_SESSION_ID, description="the experiment's unit; without one, no experiment"
    )


class WantedForMany(_Given):
    """Many requests at once."""

    requests: list[WantedFor] = Field(min_length=1, max_length=MAX_INSTANCES)


class Item(BaseModel):
    """One recommended item."""

    rank: int = Field(ge=1)
    score: float
    item_id: str
    title: str
    domain: str
    categories: list[str]


class Answer(BaseModel):
    """A list, and everything needed to say where it came from."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "request_id": "5f0c5f3f6c8b4b0f9d3c0a8b6b0f1c2d",
                    "user_id": "ml-1m:17",
                    "variant": "champion",
                    "model": "ials",
                    "model_version": "3",
                    "rung": "personalised",
                    "items": [
                        {
                            "rank": 1,
                            "score": 0.83,
                            "item_id": "movielens:1196",
                            "title": "Star Wars: Episode V - The Empire Strikes Back (1980)",
                            "domain": "movies",
                            "categories": ["Action", "Adventure"],
                        }
                    ],
                }
            ]
        },
    )

    request_id: str
    user_id: str
    variant: str
    model: str
    model_version: str
    rung: str
    items: list[Item]


class ManyAnswers(BaseModel):
    """The answers, in the order of the requests."""

    answers: list[Answer]


class SimilarItems(BaseModel):
    """The items most like one item; their scores are the similarities."""

    model_config = ConfigDict(protected_namespaces=())

    item_id: str
    model: str
    model_version: str
    items: list[Item]


class VertexRequest(_Given):
    """Vertex AI's envelope."""

    instances: list[WantedFor] = Field(min_length=1, max_length=MAX_INSTANCES)
    parameters: dict[str, Any] | None = Field(None, description="accepted, not used")


class VertexAnswer(BaseModel):
    predictions: list[Answer]


class NewEvent(_Given):
    """An interaction as a client reports it.

    The same event may be sent again: with the same `event_id`, or with none and the same `occurred_at`, it counts once.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ml-1m:17",
                    "item_id": "movielens:1196",
                    "domain": "movies",
                    "event_type": "click",
                    "occurred_at": "2026-11-22T10:15:00Z",
                    "request_id": "5f0c5f3f6c8b4b0f9d3c0a8b6b0f1c2d",
                }
            ]
        }
    )

    user_id: Identifier
    item_id: Identifier
    domain: Domain
    event_type: EventType
    rating: Annotated[float, BeforeValidator(no_text)] | None = Field(None, ge=0, le=5)
    occurred_at: Annotated[AwareDatetime, BeforeValidator(no_number)] | None = Field(
        None, ge=EPOCH, description="default: the instant of arrival"
    )
    event_id: Identifier | None = Field(None, description="default: derived from the content")
    request_id: Identifier | None = Field(None, description="the answer that showed the item")
    context: dict[str, str] = Field(default_factory=dict, max_length=31)

    def interaction(self, received_at: datetime) -> Interaction:
        """Return the event as it goes on the topic; an instant that the client left out is that of arrival."""
        occurred_at = (self.occurred_at or received_at).astimezone(UTC)
        millis = int(occurred_at.timestamp() * 1000)
        request = {"request_id": self.request_id} if self.request_id else {}
        return Interaction(
            event_id=self.event_id or event_id(STREAM_SOURCE, self.user_id, self.item_id, self.event_type, millis),
            user_id=self.user_id,
            item_id=self.item_id,
            rating=self.rating,
            occurred_at=occurred_at,
            domain=self.domain,
            event_type=self.event_type,
            context=self.context | request,
        )


class Accepted(BaseModel):
    event_id: str = Field(examples=["9e107d9d372bb6826bd81d3542a419d6"])


class CandidateReady(BaseModel):
    """The version beside the champion, loaded."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    stage: str
    share: float


class Ready(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: str = "ready"
    model: str
    model_version: str
    ranker_version: str | None = None
    """Null where lists keep the order of retrieval."""
    index_recall: float | None = None
    """Share of the true best 100 that the approximate index finds; null where every item is scored."""
    candidate: CandidateReady | None = None


class Fault(BaseModel):
    code: str = Field(examples=["invalid_request"])
    message: str = Field(examples=["k: Input should be less than or equal to 1000"])


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: Fault
