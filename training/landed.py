"""Has the stream landed what users did? A cut that is taken behind a long queue holds half of a change."""

import http.client
import re
import urllib.request

import tenacity

from recsys.settings import Settings

FEW = 1000
"""Messages that may wait: a batch of the consumer, less than a second of its work."""
METRIC = re.compile(rb"^recsys_stream_lag_messages (\S+)$", re.MULTILINE)
SECONDS = 5


def messages_waiting(streaming_url: str) -> int | None:
    """Return how many messages the consumer at this address has not handled yet; None where none answers."""
    try:
        with urllib.request.urlopen(f"{streaming_url}/metrics", timeout=SECONDS) as answer:
            found = METRIC.search(answer.read())
    except (OSError, http.client.HTTPException):
        return None
    return int(float(found[1])) if found else None


def landed(settings: Settings) -> int | None:
    """Wait until few messages wait, no longer than `retraining_landing_seconds`; return how many do then.

    A consumer that does not answer is not waited for: training on what is there is better than none.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda waiting: waiting is not None and waiting > FEW),
        stop=tenacity.stop_after_delay(settings.retraining_landing_seconds),
        wait=tenacity.wait_fixed(1),
        retry_error_callback=lambda last: last.outcome.result(),
    )(messages_waiting, settings.streaming_url)
