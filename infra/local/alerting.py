"""Airflow's connections for its alerts, from our settings: a webhook and a mail server (dags/alerts.py uses them)."""

from typing import Any
from urllib.parse import unquote, urlsplit

from recsys.errors import RecsysError
from recsys.settings import Settings

WEBHOOK, MAIL = "recsys_alerts", "recsys_mail"
MAIL_SCHEMES = {"smtp": (True, True), "smtp+starttls": (False, True), "smtps": (True, False)}
"""Scheme → Airflow's (disable_tls, disable_ssl)."""


def options(settings: Settings) -> dict[str, str]:
    """Return what the DAG files read of `[recsys]`: who hears, never the webhook's address, which is a secret."""
    return {
        "alert_webhook": WEBHOOK if settings.alert_webhook else "",
        "alert_emails": settings.alert_emails,
        "runbook_url": settings.runbook_url.rstrip("/"),
    }


def connections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return Airflow's connections by id, of what is set up.

    Raises:
        RecsysError: the webhook is no http URL, or the mail server's scheme is unknown.
    """
    found: dict[str, dict[str, Any]] = {}
    if settings.alert_webhook:
        if urlsplit(settings.alert_webhook).scheme not in ("http", "https"):
            raise RecsysError("RECSYS_ALERT_WEBHOOK", settings.alert_webhook, "Give a URL that begins with https://")
        found[WEBHOOK] = {"conn_type": "http", "host": settings.alert_webhook}
    if settings.alert_emails:
        found[MAIL] = _mail(settings)
    return found


def _mail(settings: Settings) -> dict[str, Any]:
    url = urlsplit(settings.smtp_url)
    if url.scheme not in MAIL_SCHEMES or not url.hostname:
        raise RecsysError("RECSYS_SMTP_URL", url.scheme or "no scheme", f"Begin with {', '.join(MAIL_SCHEMES)}://host")
    disable_tls, disable_ssl = MAIL_SCHEMES[url.scheme]
    return {
        "conn_type": "smtp",
        "host": url.hostname,
        "port": url.port or (465 if url.scheme == "smtps" else 587 if url.scheme == "smtp+starttls" else 25),
        "login": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "extra": {
            "from_email": settings.alert_sender,
            "disable_tls": disable_tls,
            "disable_ssl": disable_ssl,
            "timeout": 10,
            "retry_limit": 2,
        },
    }
