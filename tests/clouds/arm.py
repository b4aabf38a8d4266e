"""Azure Resource Manager, as far as both Azure emulators are one: its refusals, its metrics.

Source: Azure REST API "Metrics - List".
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

from tests.clouds.emulation import Emulator, Refused

SUBSCRIPTION = "00000000-0000-4000-8000-000000000000"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rehearsal"
REGION = "eastus"


def refused(status: int, code: str, message: str) -> Refused:
    return Refused(status, {"error": {"code": code, "message": message}})


class ArmEmulator(Emulator):
    """One resource group. `files`: the folder that stands for its storage account."""

    quota: ClassVar[tuple[int, str, str]]
    """Status, code and message of a quota that is used up."""
    metric: ClassVar[tuple[str, str]]
    """The endpoint's count of requests in Azure Monitor, and the aggregation that it has."""

    def __init__(self, serving_urls: Mapping[str, str], certificate: tuple[str, str], files: Path):
        self._files = files
        super().__init__(serving_urls, certificate)

    def refusal(self, kind: str) -> Refused:
        return {
            "throttled": refused(429, "TooManyRequests", "of this test"),
            "broken": refused(500, "InternalServerError", "of this test"),
            "unavailable": refused(503, "ServiceUnavailable", "of this test"),
            "expired": refused(401, "ExpiredAuthenticationToken", "The access token has expired"),
            "forbidden": refused(403, "AuthorizationFailed", "does not have authorization to perform action"),
            "quota": refused(*self.quota),
        }[kind]

    def counted(self, environ: Mapping[str, Any]) -> dict[str, Any]:
        """Answer Azure Monitor's metrics: all in one hour's value, and an hour without, which says none."""
        name, aggregation = self.metric
        asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        if (asked.get("metricnames"), asked.get("aggregation")) != self.metric:
            raise refused(400, "BadRequest", f"Valid metrics: {name} ({aggregation})")
        since, until = (datetime.fromisoformat(each).timestamp() for each in asked["timespan"].split("/"))
        number = float(self.asked_between(since, until))
        value = number / 60 if aggregation == "Average" else number  # a mean a minute, of an hour
        series = [{"data": [{aggregation.lower(): value}, {}]}]
        return {"value": [{"name": {"value": name}, "timeseries": series}]}
