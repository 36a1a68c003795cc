"""What is believed of candidates that weren't measured: the posterior mean of a Gaussian process.

Gaussian processes with a length scale for each feature tell noise from signal, so a single lucky measurement isn't chased,
and learn from few points which settings matter (Rasmussen and Williams 2006, chapters 2 and 5).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from search.sampling.step_tree import Floats

MOST_FITTED = 100
"""Length scales are fitted to so many points; fitting takes cubic time, and more points hardly change them."""
ITERATIONS = 40
"""Of the fit of length scales: what comes after is too little for its time."""


def believed(features: Floats, values: Floats, at: Floats, random: np.random.Generator) -> Floats:
    """Posterior means at ``at`` [candidate, feature], [candidate, form, objective], given ``values`` of ``features``.

    Each objective has a process of its own; the forms of a step share it, as they share its luck. ``random`` draws
    the points that length scales are fitted to where there are more than ``MOST_FITTED``.
    """
    if not len(at):
        return np.empty((0, *values.shape[1:]))
    some = np.arange(len(values))
    if len(values) > MOST_FITTED:
        some = np.sort(random.choice(some, MOST_FITTED, replace=False))
    with threadpool_limits(1):  # more threads take longer for what is this small, and workers have the cores
        found = [_mean(features, values[..., i], at, some) for i in range(values.shape[-1])]
    return np.stack(found, axis=-1)


def _mean(features: Floats, values: Floats, at: Floats, some: np.ndarray) -> Floats:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - a second, and most commands ask no sampler
    from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel  # noqa: PLC0415

    dimensions = features.shape[1]
    scales = Matern(np.full(dimensions, dimensions**0.5), length_scale_bounds=(0.5, 100), nu=2.5)
    kernel = ConstantKernel(1.0, (0.01, 100)) * scales + WhiteKernel(0.01, noise_level_bounds=(1e-6, 1))
    process = GaussianProcessRegressor(kernel, optimizer=_fitted, normalize_y=True)
    with warnings.catch_warnings():  # a scale at its bound says that a setting doesn't matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(features[some], values[some].mean(axis=1))
    whole = GaussianProcessRegressor(process.kernel_, optimizer=None, normalize_y=True).fit(features, values)
    return np.asarray(whole.predict(at), np.float64).reshape(len(at), -1)


def _fitted(objective: Callable[..., Any], start: Floats, bounds: Floats) -> tuple[Floats, float]:
    from scipy.optimize import minimize  # noqa: PLC0415

    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
    return found.x, float(found.fun)
