"""What a door's definitions are made of: batches of rows, and expectations of them with a severity.

`fail` stops the door: nothing downstream may run. `warn` writes an outcome row and lets the data through.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from great_expectations.expectations import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

Severity = Literal["fail", "warn"]
SEVERITIES: dict[Severity, FailureSeverity] = {"fail": FailureSeverity.CRITICAL, "warn": FailureSeverity.WARNING}


@dataclass(frozen=True)
class Batch:
    """Rows to judge, given by a query, and what is expected of them."""

    name: str
    query: str
    expectations: tuple[Expectation, ...]


def expect(severity: Severity, check: str, kind: Callable[..., Expectation], **arguments: Any) -> Expectation:
    """Return an expectation that outcomes call `check`; a check's name is unique in its batch."""
    return kind(severity=SEVERITIES[severity], meta={"check": check}, **arguments)


def severity_of(configuration: Mapping[str, Any]) -> Severity:
    """Return the severity of an expectation from its configuration in a result."""
    return "warn" if configuration.get("severity") == FailureSeverity.WARNING.value else "fail"


def literals(values: tuple[str, ...]) -> str:
    """Return words of our own vocabulary as SQL literals in parentheses."""
    return "(" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + ")"
