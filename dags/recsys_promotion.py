"""Airflow DAG: a candidate's way to champion: shadow, 1, 10, 25, 50 %, all; or back.

Looks at a short interval. A look judges what was seen, takes the one step that is due, and lets serving follow; without
a candidate all three tasks do nothing. Looked at twice, the same step is taken once.
"""

from station_operator import every, looking, station

from recsys import artifacts

with looking(artifacts.DAG_PROMOTION, __doc__, every("promotion_look_seconds", 60)):
    judge_candidate = station("judge_candidate", "experiments", "judge")
    move_candidate = station("move_candidate", "training", "move")
    follow_candidate = station("follow_candidate", "infra.local", "follow")

    judge_candidate >> move_candidate >> follow_candidate
