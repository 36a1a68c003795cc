"""What has to be installed: every package is pinned in one place, and one that only some need is refused by name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import search.__main__ as search_main
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
    """An extra may ask for more of one, such as ray[default], and then in the same version."""
    assert set(Counter(pin.partition("==")[0].lower() for pin in PINS).values()) == {1}
    assert len({re.sub(r"\[.*\]", "", pin) for pin in PINS}) == len({re.split(r"[\[=]", pin)[0] for pin in PINS})


def test_clusters_that_store_in_a_bucket_install_its_client() -> None:
    for name in ("launcher.yaml", "rayjob.yaml"):
        assert EXTRAS["cloud"][0] in (ROOT / "search" / "cluster" / name).read_text()


def test_the_package_has_its_commands_and_what_is_not_python(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "search", "trainables", "analysis"):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    build = "import setuptools.build_meta as backend; backend.build_wheel('wheels')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)  # noqa: S603 - our own
    with zipfile.ZipFile(next((tmp_path / "wheels").iterdir())) as wheel:
        names = set(wheel.namelist())
        info = {name.rpartition("/")[2]: wheel.read(name).decode() for name in names if ".dist-info/" in name}
    committed = subprocess.check_output(["git", "ls-files", "search", "trainables", "analysis"], cwd=ROOT, text=True)  # noqa: S607
    assert {name for name in names if ".dist-info/" not in name} >= set(committed.split())
    assert "pruning-front = search.__main__:pruning_front" in info["entry_points.txt"]
    needed = [line.partition(": ")[2] for line in info["METADATA"].splitlines() if line.startswith("Requires-Dist: ")]
    assert {pin.replace(" ", "") for pin in needed if "extra ==" not in pin} == set(
        PINS[: len(PINS) - sum(map(len, EXTRAS.values()))]
    )


def test_the_console_script_has_the_commands_of_both_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][search_main.COMMANDS]
    points = [EntryPoint(name, value, search_main.COMMANDS) for name, value in group.items()]
    monkeypatch.setattr(search_main, "entry_points", lambda **_: points)
    for command in ("run", "confirm", "export", "pack", "report", "compare"):
        monkeypatch.setattr(sys, "argv", ["pruning-front", command, "--help"])
        with pytest.raises(SystemExit) as ended:
            search_main.pruning_front()
        assert ended.value.code == 0 and f"usage: pruning-front {command}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["pruning-front", "report", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        search_main.pruning_front()
    assert ended.value.code == 2 and "error: nowhere: no such folder" in capsys.readouterr().err


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
