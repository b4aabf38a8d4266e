"""What the marts say now, read as the dashboard reads them: never written, nothing computed."""

from typing import Any

import psycopg

from recsys import artifacts
from recsys.settings import Settings
from recsys.warehouse import connect

QUESTIONS = {
    "Lately, by domain": (
        artifacts.AGG_HEADLINES,
        "select domain, headline, round(value::numeric, 4) as value, round(100 * change::numeric, 1) as change_percent"
        " from {table} order by domain, headline",
    ),
    "Models of the latest cut": (
        artifacts.AGG_MODEL_FRONT,
        "select model, framework, round(ndcg_at_10::numeric, 4) as ndcg_at_10,"
        " round(inference_p50_ms::numeric, 3) as answer_ms, round(training_seconds::numeric, 1) as training_s,"
        " is_on_front"
        " from {table} where as_of = (select max(as_of) from {table}) order by ndcg_at_10 desc",
    ),
    "Promises": (
        artifacts.AGG_SERVICE_LEVELS,
        "select objective, target, good, total, round(attained::numeric, 4) as attained,"
        " round(budget_left::numeric, 2) as budget_left from {table} order by objective",
    ),
    "Kinds of customers": (
        artifacts.SEGMENT_PROFILES,
        "select domain, segment, description from {table} as told"
        " where as_of = (select max(as_of) from {table} where domain = told.domain) order by domain, users desc",
    ),
    "What the experiments conclude": (
        artifacts.OUTCOMES,
        "select subject, observed as conclusion, outcome_date as read_on from {table} where station = 'experiments'"
        " and check_name = 'conclusion' and outcome_date = (select max(outcome_date) from {table}"
        " where station = 'experiments') order by subject limit 20",
    ),
}  # fmt: skip


def read(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return the answers to `QUESTIONS`; one whose table is not there, or is empty, has no row.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for question, (table, query) in QUESTIONS.items():
        with connect(settings) as connection:
            connection.read_only = True
            cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
            (exists,) = connection.execute("select to_regclass(%s) is not null", [table]).fetchone()
            found[question] = cursor.execute(query.format(table=table)).fetchall() if exists else []
    return found
