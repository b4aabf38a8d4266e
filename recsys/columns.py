"""Column names, each spelled once. Every station and every table uses these words."""

USER_ID = "user_id"
ITEM_ID = "item_id"
RATING = "rating"
OCCURRED_AT = "occurred_at"
DOMAIN = "domain"
EVENT_TYPE = "event_type"
CONTEXT = "context"
EVENT_ID = "event_id"
SOURCE = "source"
LANDED_PARTITION = "landed_partition"

TITLE = "title"
TEXT = "text"
CATEGORIES = "categories"
CREATORS = "creators"
PRICE = "price"
PUBLISHED_YEAR = "published_year"
ATTRIBUTES = "attributes"

REQUEST_ID = "request_id"
RANK = "rank"
SCORE = "score"
VARIANT = "variant"
MODEL_VERSION = "model_version"
PROPENSITY = "propensity"
RUNG = "rung"
SHOWN_AT = "shown_at"

EVENT_TIMESTAMP = "event_timestamp"

DOMAINS = ("movies", "products", "books", "social")
EVENT_TYPES = ("view", "click", "purchase", "rate", "share")
