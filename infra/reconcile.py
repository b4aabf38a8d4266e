"""From the actual to the desired state, step by step, each step written down before and after it is done.

    ledger        <var_dir>/clouds/<target>.jsonl: one JSON a line, {"verb", "kind", "name", "state": begun|done|failed}

A process that dies between a cloud's create and the line `done` leaves a line `begun`. The next run reads the actual
state, finds the resource there and goes on; teardown removes what a line names even if the cloud's own list does not
show it yet.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tenacity

from infra.targets import Change, CloudFault, Key, Plan, Plane, Resource, Transient

ATTEMPTS = 6
WAIT = tenacity.wait_exponential_jitter(initial=0.5, max=20)
"""Six tries over about half a minute: what throttles for longer is a person's matter."""


class Ledger:
    """What was begun and what was done. A torn last line, of a process killed while writing, counts as not written."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, change: Change, state: str) -> None:
        """Append a line and see it on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"verb": change.verb, "kind": change.kind, "name": change.name, "state": state}
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size > 0
        with self.path.open("a") as file:
            file.write(("\n" if torn else "") + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def standing(self) -> list[Key]:
        """Return what may be there: created, or begun to be, and not surely deleted. In order of creation."""
        keys: dict[Key, None] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            key = Key(entry["kind"], entry["name"])
            if entry["verb"] == "delete" and entry["state"] == "done":
                keys.pop(key, None)
            elif entry["verb"] == "create":
                keys.setdefault(key)
        return list(keys)

    def is_open(self, change: Change) -> bool:
        """Return whether the last line about this change says that it was begun, and not that it ended."""
        last = ""
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if (entry["verb"], entry["kind"], entry["name"]) == (change.verb, change.kind, change.name):
                last = entry["state"]
        return last in ("begun", "failed")


class Reconciler:
    """Compares and carries out.

    Args:
        target: whose name stands in plans.
        sleep: waits between tries; a test gives one that does not.
    """

    def __init__(self, target: str, plane: Plane, ledger: Ledger, sleep: Callable[[float], None] = tenacity.nap.sleep):
        self.target, self.plane, self.ledger = target, plane, ledger
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=WAIT,
            sleep=sleep,
            reraise=True,
        )

    def persist(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the plane, again while it says not now."""
        return self._retrying(call, *arguments)

    def plan(self, desired: Sequence[Resource]) -> Plan:
        """Return the changes from what is to what should be: creations and updates in order, then what is left over."""
        wanted = {resource.key for resource in desired}
        changes = []
        for resource in desired:
            actual = self.persist(self.plane.read, resource.key)
            if actual != resource.spec:
                verb = "create" if actual is None else "update"
                changes.append(Change(verb=verb, kind=resource.kind, name=resource.name, spec=resource.spec))
        left_over = [key for key in self._there() if key not in wanted]
        changes += [Change(verb="delete", kind=key.kind, name=key.name) for key in reversed(left_over)]
        monthly = sum(resource.monthly_usd for resource in desired)
        return Plan(target=self.target, changes=tuple(changes), monthly_usd=round(monthly, 2))

    def apply(self, plan: Plan) -> Plan:
        """Carry a plan out and return it.

        Raises:
            CloudFault: a step failed for good; the ledger says which.
        """
        for change in plan.changes:
            self.ledger.write(change, "begun")
            try:
                self._carry_out(change)
            except CloudFault:
                self.ledger.write(change, "failed")
                raise
            self.ledger.write(change, "done")
        return plan

    def reach(self, desired: Sequence[Resource], otherwise: Sequence[Resource]) -> Plan:
        """Reach the desired state, or else go back to this other one, which served before.

        Raises:
            CloudFault: the first fault. The way back was tried; its own fault is noted on the first one.
        """
        try:
            return self.apply(self.plan(desired))
        except CloudFault as fault:
            try:
                self.apply(self.plan(otherwise))
            except CloudFault as second:
                fault.add_note(f"going back failed too ({second}); the next run goes on from there")
            raise

    def _there(self) -> Iterable[Key]:
        owned = self.persist(self.plane.owned)
        unseen = [key for key in self.ledger.standing() if key not in owned]
        return [*owned, *(key for key in unseen if self.persist(self.plane.read, key) is not None)]

    def _carry_out(self, change: Change) -> None:
        if change.verb == "delete":
            self.persist(self.plane.delete, change.key)
            return
        try:
            self.persist(self.plane.create if change.verb == "create" else self.plane.update, change.key, change.spec)
        except FileExistsError:
            # Somebody's, or our own of a try whose answer was lost: the content decides.
            actual = self.persist(self.plane.read, change.key)
            if actual is None:
                raise CloudFault(change.kind, change.name, "Its name is taken by something that is not ours") from None
            if actual != change.spec:
                self.persist(self.plane.update, change.key, change.spec)
