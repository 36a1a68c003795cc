"""What every method says of itself, over the registries; and that the documented tables are made from it."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from search.methods import REGISTRIES, keys, table
from search.study import load_study
from tests import ROOT
from tests.forks.process import python
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


def test_the_documented_tables_are_made_from_the_classes() -> None:
    assert "\n".join(table()) in (ROOT / "docs" / "methods.md").read_text()
    assert "\n".join(keys()) + "\n" == (ROOT / "docs" / "study_keys.md").read_text()


@pytest.mark.parametrize("file", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_between_pages_lead_somewhere(file: str) -> None:
    text = (ROOT / file).read_text()
    found = re.findall(r"\]\(([^)#:]+)(#[^)]*)?\)", text)
    assert [link for link, _ in found if not ((ROOT / file).parent / link).exists()] == []


def test_the_study_files_of_the_documentation_load(tmp_path: Path) -> None:
    exercise = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "exercise.md").read_text(), re.DOTALL)
    tutorial = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    (tmp_path / "exercise.yaml").write_text("".join(exercise))
    (tmp_path / "photographs.yaml").write_text("".join(tutorial))
    sweep = load_study(tmp_path / "exercise.yaml").schedules()
    assert [len(schedule.targets()) for schedule in sweep] == [1] * 10 + [7] + [5] * 8
    assert load_study(tmp_path / "photographs.yaml").space is not None


@pytest.mark.ray
def test_the_documented_method_of_one_s_own_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    code = next(part for part in text.split("```python")[1:] if "class Blend" in part).partition("```")[0]
    ast.parse(code)
    (tmp_path / "mine.py").write_text(code)
    sweep = [{"importance": "mine:Blend", "step_ratio": 0.5}]
    file = write(tmp_path, raw_study(tmp_path, sweep=sweep, methods={"mine:Blend": {"power": 0.3}}))
    said, environment = tmp_path / "said", {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = python("-m", "search", "run", str(file), "--allow-code", said=said, environment=environment, folder=tmp_path)
    assert driver.wait() == 0, said.read_text()
    assert "mine:Blend" in (tmp_path / "results" / "tiny" / "points.jsonl").read_text()
