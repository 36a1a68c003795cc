"""How much better what was chosen looks than it is: the bias of a maximum, from the noise of the validation images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.effects.sentences import validation_images
from analysis.load import Study
from analysis.pareto import ROUNDING, excess, measured
from trainables.records.fronts import Floats, nondominated

DRAWS = 200
Choice = Callable[[Floats], npt.NDArray[np.int64]]
"""From what every candidate gained on the measure to which of them are chosen; none may be."""


def flattery(gained: Floats, errors: Floats, choose: Choice) -> float:
    """By how much those that ``choose`` takes are expected to look better than they are, in the measure's unit.

    A parametric bootstrap of the winner's curse (Efron and Tibshirani 1993): what was measured stands for the truth, an
    error of its standard size is drawn for each candidate, the choice is made anew, and the errors of the chosen are
    averaged. Errors are drawn independently, although all were measured on the same images. NaN where none is ever chosen.
    """
    draw = np.random.default_rng(0)
    drawn = (errors * draw.standard_normal(len(errors)) for _ in range(DRAWS))
    found = [noise[chosen].mean() for noise in drawn if len(chosen := choose(gained + noise))]
    return float(np.mean(found)) if found else np.nan


def errors_of(rows: pd.DataFrame, study: Study) -> Floats | None:
    """The standard error of each network's measure on the validation images; None where it isn't known."""
    measure, images = study.measure, validation_images(study.provenance)
    if measure.counted:
        found = [measure.noise(value, images) for value in rows[measure.column]] if images else [0.0]
    else:
        found = rows[measure.error].fillna(0.0).to_list() if measure.error in rows else [0.0]
    return np.array(found, np.float64) if any(found) else None


def of_front(study: Study) -> float | None:
    """By how much the members of the front are expected to look better than they are; None where that can't be told."""
    place = next((place for place, one in enumerate(study.objectives) if one.quality), None)
    rows = measured(study.pruned, study.objectives, study.dense)
    errors = errors_of(rows, study)
    if place is None or errors is None or rows.empty:
        return None
    values = excess(rows, study.objectives, study.dense, study.accuracy_drop)

    def choose(gained: Floats) -> npt.NDArray[np.int64]:
        now = values.copy()
        now[:, place] = gained
        return np.flatnonzero(nondominated(now) & (now >= -ROUNDING).all(axis=1))

    return _known(flattery(values[:, place], errors, choose))


def of_promise(rows: pd.DataFrame, study: Study, lost: str, by: str | None, drop: float) -> float | None:
    """The same of the network that is best in column ``by``, or on the measure, of those that ``lost`` no more than a drop.

    ``lost`` is against the dense network, whose own error counts too.
    """
    errors, of_dense = errors_of(rows, study), errors_of(study.dense, study)
    if errors is None or of_dense is None or rows.empty:
        return None
    worth = None if by is None else rows[by].fillna(-np.inf).to_numpy(np.float64)

    def choose(gained: Floats) -> npt.NDArray[np.int64]:
        near = np.flatnonzero(gained >= -drop - ROUNDING)
        return near[[(gained if worth is None else worth)[near].argmax()]] if len(near) else near

    return _known(flattery(-rows[lost].to_numpy(np.float64), np.hypot(errors, of_dense.max()), choose))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
