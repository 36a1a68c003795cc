"""What the tests share: the digits, small problems on them, and a tree in a temporary folder."""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from tests import ROOT
from tests.forks.process import start_forking
from tests.s3_server import S3, make_bucket, s3_server
from trainables.data.dataset import Data, DataSettings, load
from trainables.networks.factory import ModelSettings
from trainables.networks.network import Masks, Network
from trainables.problem import Problem
from trainables.pruning import masks as masks_module
from trainables.pruning.sample import Sample
from trainables.pruning.weight_importances import WEIGHT_IMPORTANCES
from trainables.pruning.weight_scopes import WEIGHT_SCOPES
from trainables.storage.base import Place
from trainables.storage.store import Store
from trainables.training.loop import DenseSettings
from trainables.tree import Tree

# Ray would kill workers because other programs here take memory; what a test needs itself is looked at before it begins.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # behind the tests beside them, workers would get next to nothing
RAY_TAKES = 3 * 2**30
"""Bytes of memory for a small study: the driver and two workers, each with torch."""

# A study measures latencies while no other of its user computes on the machine; those of other tests needn't wait for it.
os.environ["LOGNAME"] = f"{getpass.getuser()}-{os.environ.get('PYTEST_XDIST_WORKER', 'tests')}"

# Networks this small are slower on several threads, and far slower where other programs run beside them.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in processes that are started, too
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MakeProblem = Callable[..., Problem]
"""``(name="cnn", width=4, dense=None, **fields of Problem) -> Problem``"""


LONGEST = (
    "search/cluster/test_cluster.py", "trainables/pruning/test_structured.py", "search/test_storage.py",
    "trainables/pruning/test_gate.py", "search/test_runs.py", "search/cluster/test_jobs.py", "faults/test_storms.py",
    "search/test_confirm.py", "faults/test_interrupts.py", "search/test_notebook.py", "faults/test_trial_ends.py",
    "search/test_gated_studies.py", "analysis/test_mattered.py", "analysis/test_compare.py", "analysis/test_report.py",
    "trainables/test_walk.py", "trainables/training/test_training.py", "faults/test_damage.py",
    "trainables/training/test_resuming.py", "search/tune/test_searcher.py", "test_hostile.py",
    "benchmarks/test_search_efficiency.py", "faults/test_workers.py", "search/test_input.py",
    "search/test_comparison_study.py", "trainables/training/test_padding.py", "trainables/storage/test_store.py",
)  # fmt: skip
"""A process of pytest-xdist takes a whole file, and several share the cores: what takes a minute has to begin first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, then others that start Ray; the short ones fill what is left."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    long = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: (places.get(item.path, len(LONGEST)), item.path not in long))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what starts Ray where its workers would not get the memory that they take."""
    free = psutil.virtual_memory().available
    if item.get_closest_marker("ray") and free < RAY_TAKES:
        pytest.skip(f"needs {RAY_TAKES / 2**30:g} GB of memory for Ray's workers, and {free / 2**30:.1f} GB are free")
    if item.get_closest_marker("ray"):
        start_forking()


def digits_problem(
    name: str = "cnn", width: int = 4, *, data: Data | None = None, dense: dict[str, Any] | None = None, **fields: Any
) -> Problem:
    """A problem on the digits whose dense training is two epochs on one thread."""
    recipe = {"epochs": 2, "batch_size": 128, "threads": 1, **(dense or {})}
    settings = ModelSettings(name=name, arguments={"width": width})
    return Problem(data or load(DataSettings()), **{"model": settings, "dense": DenseSettings(**recipe), **fields})


def photographs(count: int = 48, side: int = 32, classes: int = 4) -> Data:
    """Random colour images by hand, for networks that take three channels."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    labels = np.arange(count) % classes
    half = count // 2
    names = tuple(f"class {i}" for i in range(classes))
    moments = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return Data(
        images[:half],
        labels[:half],
        images[half:],
        labels[half:],
        names,
        **moments,
        crop=4,
        flip=True,
        fingerprint="random",
    )


def cut_weights(
    model: nn.Module, masks: Masks, importance: str, scope: str, removed_ppm: int, seed: int = 0, data: Data | None = None
) -> Masks:
    """``masks.cut`` by names; only scores that see images need ``data``."""
    method = WEIGHT_IMPORTANCES.make(importance, {"score_images": 64})
    sample = Sample(data, seed)  # type: ignore[arg-type]
    return masks_module.cut(Network(model, masks), method, WEIGHT_SCOPES.make(scope), removed_ppm, sample)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything a model holds."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is found of networks is kept for one session, and not with the user's own."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data() -> Data:
    return load(DataSettings())


@pytest.fixture(scope="session")
def problem(data: Data) -> MakeProblem:
    def make(*args: Any, **kwargs: Any) -> Problem:
        return digits_problem(*args, **{"data": data, **kwargs})

    return make


@pytest.fixture
def tree(problem: MakeProblem, tmp_path: Path) -> Tree:
    return Tree(problem(), Store(tmp_path / "steps"))


@contextmanager
def ray_of_one_core() -> Iterator[None]:
    """One Ray for all studies that are run inside, in this process; each would start its own.

    What takes time is that every worker imports torch: so there is one, and it stays for the next study's dense training.
    """
    import ray  # noqa: PLC0415 - most tests need none

    from search.cluster.connection import local  # noqa: PLC0415
    from search.cluster.interrupts import sigterm_is_not_ray_s  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch, sigterm_is_not_ray_s():
        patch.setattr(ray, "init", partial(ray.init, num_cpus=1))
        patch.setenv("RAY_num_workers_soft_limit", "3")
        with local():
            yield


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for the tests of a module."""
    with ray_of_one_core():
        yield


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that a study starts for itself in this process has one core, and so one worker for trials."""
    import ray  # noqa: PLC0415

    monkeypatch.setattr(ray, "init", partial(ray.init, num_cpus=1))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where Ray is started, or the one that is there is asked for."""

    def started(**_: Any) -> None:
        raise AssertionError("Ray was started with nothing left to do")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", started)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, which this process and its children can reach."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    make_bucket(s3.endpoint, name)
    return f"s3://{name}"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where steps are stored: a folder, and a bucket."""
    return tmp_path / "steps" if request.param == "folder" else f"{request.getfixturevalue('bucket')}/a study/steps"


@pytest.fixture
def stored(problem: MakeProblem, place: Place) -> Tree:
    """A tree in a folder, and one in a bucket."""
    return Tree(problem(), Store(place))
