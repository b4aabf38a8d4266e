"""Plots of an evaluation, for its runs in MLflow."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from training.evaluate import DECIDING_METRIC

SIZE = (7.0, 3.2)
"""Inches."""


def of_models(quality: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the deciding metric of each model, the best on top."""
    ordered = sorted(quality, key=lambda name: quality[name][DECIDING_METRIC])
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.barh(ordered, [quality[name][DECIDING_METRIC] for name in ordered])
    axes.set_xlabel(DECIDING_METRIC)
    return figure


def of_users(model: str, per_user: Mapping[str, np.ndarray]) -> Figure:
    """Draw how a model's deciding metric is spread over the test users."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    values = per_user[DECIDING_METRIC]
    axes.hist(values[~np.isnan(values)], bins=20, range=(0, 1))
    axes.set_xlabel(f"{DECIDING_METRIC} of {model}")
    axes.set_ylabel("test users")
    return figure
