"""A study that is submitted to Ray's job server, which ships the code to the nodes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.cluster.connection import connected
from search.study import Study
from tests import ROOT
from tests.data_helpers import write_images
from tests.hosts import RAY, Hosts, hosts, until
from tests.search_helpers import raw_study, rows, write
from trainables.identity import code_hash
from trainables.records import names as n
from trainables.records.names import InputError

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]

PORT = 8265
PACKAGES = ("search", "trainables", "analysis")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Hosts]:
    """A head that takes jobs and a node, where nothing but Ray finds this program."""
    pytest.importorskip("aiohttp_cors", reason="Ray's job server needs the extra 'cluster'")
    with hosts(tmp_path / "hosts") as found:
        (tmp_path / "hosts").mkdir()
        if not found.isolated:
            pytest.skip("needs hosts with mounts of their own: two nodes in one folder delete each other's code")
        found.environment.pop("PYTHONPATH")
        found.add_head(PORT)
        found.add().start_node(before=f"mount -t tmpfs none {found.temporary}")
        yield found


def submitted(cluster: Hosts, code: Path, *words: str) -> str:
    """What a job writes that runs ``python -m search run`` with the code of a folder, once it has ended."""
    client = cluster.head.start(
        *RAY, "job", "submit", f"--address=http://{cluster.head.address}:{PORT}", f"--working-dir={code}", "--",
        sys.executable, "-m", "search", "run", *words, "--address", "auto", cwd=code,
    )  # fmt: skip
    until("the job's end", lambda: client.poll() is not None, 300)
    return cluster.head.output(client)


def test_a_job_s_code_is_shipped_and_the_same_job_resumes_the_study(cluster: Hosts, tmp_path: Path) -> None:
    code = tmp_path / "code"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    mapped = code / "trainables" / "data" / "mapped.py"  # images stay in their file, as no other code would have it
    mapped.write_text(mapped.read_text().replace("MAPPED_FROM = 10**9", "MAPPED_FROM = 0"))
    sweep = [{"importance": "magnitude", "schedule": "linear", "sparsity": 0.6, "steps": 2, "fine_tune_epochs": 1}]
    data = {"dataset": "folder", "root": str(write_images(tmp_path / "images", each=20))}
    write(code, raw_study(tmp_path, sweep=sweep, data=data))
    first = submitted(cluster, code, "study.yaml")
    assert "succeeded" in first, first
    folder = tmp_path / "results" / "tiny"
    points = rows(folder / n.POINTS_FILE)
    assert [row[n.STEP] for row in points] == [0, 1, 2]
    ran = json.loads((folder / n.PROVENANCE_FILE).read_text())["code"]["sha256"]
    assert ran != code_hash(), "the node's own code, which the editable installation leads to"
    again = submitted(cluster, code, "study.yaml")
    assert "succeeded" in again, again
    assert rows(folder / n.POINTS_FILE) == points


def test_results_in_a_job_s_copy_of_the_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_ray_pkg_0123456789abcdef").mkdir()
    monkeypatch.chdir(tmp_path / "_ray_pkg_0123456789abcdef")
    study = Study.model_validate(raw_study(tmp_path, storage="results"))
    with (
        pytest.raises(InputError, match=r"^storage: 'results' would lie in this job's copy of the code"),
        connected("auto", study),
    ):
        raise AssertionError
