"""Who hears of a red task, or of a green one that warns: Airflow's own notifiers, a webhook and e-mail.

Both are off until their settings name a receiver (docs/settings.md, RECSYS_ALERT_…). An alert is one message a fact:
what happened in the command's own sentence, the log, and the runbook's page that says what to do.
"""

import json
from collections.abc import Callable
from typing import Any

from airflow.configuration import conf
from airflow.sdk import BaseNotifier, Context

WEBHOOK_CONNECTION = "recsys_alerts"
MAIL_CONNECTION = "recsys_mail"
RUNBOOKS = conf.get("recsys", "runbook_url", fallback="") or "docs/runbooks"

FACT = "{{ dag.dag_id }}.{{ ti.task_id }} of run {{ run_id }}"
PAGE = f"{RUNBOOKS}/{{{{ ti.task_id.rpartition('.')[2] }}}}.md"  # a task's page, whatever group it stands in
PLACES = f"Log: {{{{ ti.log_url }}}}\nRunbook: {PAGE}"
RED = f"{FACT} failed: {{{{ exception }}}}\n{PLACES}"


def receivers(subject: str, text: str) -> list[BaseNotifier]:
    """Return the notifiers that are set up, each with this message; both texts are Jinja templates of a task.

    The webhook gets one JSON object. Its `text` is what chat services show; the other fields are for programs. A
    notifier is imported only if it is set up: every task parses its DAG file anew, and the webhook's costs .4 s.
    """
    found: list[BaseNotifier] = []
    if conf.get("recsys", "alert_webhook", fallback=""):
        from airflow.providers.http.notifications.http import HttpNotifier

        body = {
            "text": f"{subject}\n{text}",
            "dag_id": "{{ dag.dag_id }}",
            "task_id": "{{ ti.task_id }}",
            "run_id": "{{ run_id }}",
            "try_number": "{{ ti.try_number }}",
            "runbook": PAGE,
        }
        found.append(HttpNotifier(http_conn_id=WEBHOOK_CONNECTION, json=body, extra_options={"timeout": 10}))
    if emails := conf.get("recsys", "alert_emails", fallback=""):
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        html = "<pre>" + text.replace("{{ exception }}", "{{ exception | e }}") + "</pre>"
        found.append(
            SmtpNotifier(smtp_conn_id=MAIL_CONNECTION, to=emails.split(","), subject=subject, html_content=html)
        )
    return found


def on_failure() -> list[BaseNotifier]:
    """Return what a task calls when its last try has failed."""
    return receivers(f"recsys: {FACT} is red", RED)


def on_warnings() -> Callable[[Context], None]:
    """Return what a green task calls: its `warnings`, sentences in its result, become one alert; none, no alert."""

    def send(context: Context) -> None:
        sentences = warnings(context["ti"].xcom_pull(task_ids=context["ti"].task_id))
        if sentences:
            listed = "\n".join(sentences).replace("{", "(").replace("}", ")")  # a sentence is no template
            for notifier in receivers(f"recsys: {FACT} warns", f"{listed}\n{PLACES}"):
                notifier(context)

    return send


def warnings(result: Any) -> list[str]:
    """Return the sentences of a task's result, which is a mapping or its JSON."""
    found = json.loads(result) if isinstance(result, str) else result or {}
    return [str(sentence) for sentence in found.get("warnings", [])]
