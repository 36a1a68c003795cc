"""What has to be installed: every package is pinned in one place, and one that only some need is refused by name."""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest

from tests import ROOT
from tests.search_helpers import raw_study, refusal, write

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PINS = [
    *(line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] != "#"),
    *(pin for extra in EXTRAS.values() for pin in extra),
]


@pytest.mark.parametrize("pin", PINS)
def test_what_is_pinned_is_what_is_installed(pin: str) -> None:
    name, version = re.fullmatch(r"([\w-]+)(?:\[\w+\])?==([\w.]+)", pin).groups()
    assert metadata.version(name) == version


def test_every_package_is_pinned_in_one_place() -> None:
    assert set(Counter(re.split(r"[\[=]", pin)[0].lower() for pin in PINS).values()) == {1}


def test_clusters_that_store_in_a_bucket_install_its_client() -> None:
    for name in ("launcher.yaml", "rayjob.yaml"):
        assert EXTRAS["cloud"][0] in (ROOT / "search" / "cluster" / name).read_text()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_without_its_client_is_refused_by_name(
    scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "obstore", None)  # as if it wasn't there
    monkeypatch.delitem(sys.modules, "trainables.storage.object_store", raising=False)
    line = refusal(["run", str(write(tmp_path, raw_study(tmp_path, storage=f"{scheme}://bucket/results")))], capsys)
    assert line.startswith(f"error: storage: {scheme}://bucket/results") and "needs obstore" in line
    assert "make extras" in line and "cloud" in line and "obstore" in EXTRAS["cloud"][0]
    assert not (tmp_path / "results").exists()
