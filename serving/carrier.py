"""The child at the end of the outbox: impressions to Kafka, records to Redis, counters back to its parent.

    python -m serving carry

Lines come on the standard input (`outbox.py`); its end is the order to finish. It leads a process group of its own and
lets signals pass: what waits must still be carried while its parent finishes, or when that was killed with its group.
"""

import json
import os
import signal
import sys
import threading

from pydantic_core import to_json

from recsys.settings import Settings
from serving.cache import ListLine
from serving.explanation import RequestRecord
from serving.impressions import ImpressionWriter
from serving.left_behind import Facts, record, shown
from serving.metrics import Metrics
from serving.outbox import COPY, DECISION, LIST, RECORD, REPORTED, SHOWN
from serving.request_records import RecordWriter
from serving.rollout import LiveRollout
from serving.shadow import ShadowAnswers

REPORT_SECONDS = 0.1
NICENESS = 5
"""How far it stands back where processors are short: an answer goes before what the last one has left."""


def carry(settings: Settings) -> None:
    """Carry what comes until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    os.nice(NICENESS)
    metrics, ended = Metrics(), threading.Event()
    impressions = ImpressionWriter(settings.kafka_bootstrap, settings.topic_prefix, metrics)
    # A writer each: a store that is away costs what it would have kept, and not what the other one keeps.
    records = RecordWriter(settings.record_store, settings.request_days, metrics)
    lists = RecordWriter(settings.redis_url, settings.request_days, metrics)
    shadow = ShadowAnswers(LiveRollout(settings, metrics), metrics)
    reporting = threading.Thread(target=_report, args=(metrics, ended), name="report")
    for each in (impressions, records, lists, shadow, reporting):
        each.start()
    for line in sys.stdin.buffer:
        _sort(line[:1], line[1:], impressions, records, lists, shadow)
    impressions.close()
    records.close()
    lists.close()
    ended.set()
    reporting.join()


def _sort(
    kind: bytes,
    said: bytes,
    impressions: ImpressionWriter,
    records: RecordWriter,
    lists: RecordWriter,
    shadow: ShadowAnswers,
) -> None:
    """Hand a line to whoever carries its kind on."""
    if kind == DECISION:
        told = Facts.read(said)
        if (list_ := shown(told)) is not None:
            impressions.put(list_)
        records.put(to_json(record(told)), RequestRecord)
    elif kind == SHOWN:
        impressions.put(said)
    elif kind == RECORD:
        records.put(said, RequestRecord)
    elif kind == LIST:
        lists.put(said, ListLine)
    elif kind == COPY:
        shadow.put(said)


def _report(metrics: Metrics, ended: threading.Event) -> None:
    """Tell how far each counter has moved since it was last told."""
    told: dict[tuple[str, tuple[str, ...]], float] = {}
    over = False
    while not over:
        over = ended.wait(REPORT_SECONDS)
        moved = []
        for name in REPORTED:
            for sample in next(iter(getattr(metrics, name).collect())).samples:
                key = (name, tuple(sample.labels.values()))
                if sample.value > told.get(key, 0.0):
                    moved.append((*key, sample.value - told.get(key, 0.0)))
                    told[key] = sample.value
        if moved:
            try:
                print(json.dumps(moved), flush=True)
            except BrokenPipeError:  # the parent was killed; what it left is still carried
                return
