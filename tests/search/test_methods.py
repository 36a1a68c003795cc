"""What every method says of itself, over the registries; and that the README's table is made from it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.methods import REGISTRIES, table
from tests import ROOT
from tests.search_helpers import raw_study, write

METHODS = [(registry, name) for registry in REGISTRIES.values() for name in registry]


@pytest.mark.parametrize(("registry", "name"), METHODS, ids=[f"{r.field}-{name}" for r, name in METHODS])
def test_every_method_is_told(registry: object, name: str) -> None:
    method = registry[name]  # type: ignore[index]
    assert method.name == name
    assert method.line().endswith(".")
    assert all(field.description for field in method.model_fields.values())
    assert method.described()["label"]


def test_settings_that_share_a_section_share_a_meaning() -> None:
    """A field that two methods of one section have is one key there, so it must be the same field."""
    kinds = [REGISTRIES[kind] for kind in ("importance of weights", "importance of channels", "retraining")]
    for registries in (kinds, [REGISTRIES["pruner, structured"]]):
        seen: dict[str, object] = {}
        for method in (method for registry in registries for method in registry.values()):
            for key, field in method.model_fields.items():
                told = (field.annotation, field.default, field.description)
                assert key == "epochs" or seen.setdefault(key, told) == told


def test_the_readme_s_table_is_made_from_the_classes() -> None:
    assert "\n".join(table()) in (ROOT / "README.md").read_text()


def test_the_readme_s_method_of_one_s_own_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    code = next(part for part in text.split("```python")[1:] if "class Blend" in part).partition("```")[0]
    ast.parse(code)
    (tmp_path / "mine.py").write_text(code)
    sweep = [{"importance": "mine:Blend", "step_ratio": 0.5}]
    file = write(tmp_path, raw_study(tmp_path, sweep=sweep, methods={"mine:Blend": {"power": 0.3}}))
    command = [sys.executable, "-m", "search", "run", str(file), "--allow-code"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "mine:Blend" in (tmp_path / "results" / "tiny" / "points.jsonl").read_text()
