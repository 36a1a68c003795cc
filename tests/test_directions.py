"""Which package may import which, and that nothing here reads a pickle; asserted on the source, not by importing it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "trainables", "analysis")
FILES = {str(file.relative_to(ROOT)): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}
# All of trainables that analysis may import: the vocabulary, and the checks of what it reads.
SHARED = ("trainables.names", "trainables.points", "trainables.untrusted")


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> set[str]:
    """Full names of everything that a file imports, at whatever depth: ``from a import b`` counts as a.b."""
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(package: str) -> Iterator[tuple[str, set[str]]]:
    for name, file in FILES.items():
        if name.startswith(f"{package}/"):
            yield name, imported(file)


def of(names: set[str], *packages: str) -> set[str]:
    return {name for name in names if name.split(".")[0] in packages}


def test_there_is_something_to_look_at() -> None:
    for package in PACKAGES:
        assert len(list(within(package))) > 3
    assert any(of(names, "torch") for _, names in within("trainables"))
    assert any(of(names, "trainables") for _, names in within("search"))


def test_analysis_reads_what_is_on_disk_and_imports_nothing_that_made_it() -> None:
    for file, names in within("analysis"):
        assert not of(names, "search", "ray", "torch", "torchvision", "torch_pruning"), file
        assert all(name.startswith(SHARED) for name in of(names, "trainables")), file


def test_trainables_know_neither_who_asks_nor_who_reads() -> None:
    for file, names in within("trainables"):
        assert not of(names, "search", "analysis"), file


def test_only_one_thin_module_of_trainables_knows_ray() -> None:
    assert [file for file, names in within("trainables") if of(names, "ray")] == ["trainables/trainable.py"]
    assert not [file for file, names in within("trainables") if "trainables.trainable" in names]


def test_search_never_imports_analysis() -> None:
    for file, names in within("search"):
        assert not of(names, "analysis"), file


def test_the_test_split_is_opened_by_one_module_alone() -> None:
    """What reads test images is in ``trainables.test_split``, and nothing but ``search.confirm`` can reach it."""
    split = "trainables.test_split"
    assert [file for file in FILES if any(name.startswith(split) for name in imported(FILES[file]))] == [
        "search/confirm.py"
    ]
    users = {
        name for names in (imported(FILES[file]) for file in FILES) for name in names if name.startswith("search.confirm")
    }
    assert users == {"search.confirm.confirm"}  # the command line's one entry
    for file in set(FILES) - {"trainables/test_split.py"}:
        keywords = {(word.arg, ast.unparse(word.value)) for _, call in calls(FILES[file]) for word in call.keywords}
        assert ("train", "False") not in keywords, f"{file} reads torchvision's test images"


@pytest.mark.parametrize("module", SHARED)
def test_what_is_shared_needs_the_standard_library_and_yaml_alone(module: str) -> None:
    names = imported(FILES[f"{module.replace('.', '/')}.py"])
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) <= {"yaml", "trainables"}
    assert all(name.startswith(("trainables.names", "trainables.untrusted")) for name in of(names, "trainables"))


def test_nothing_imports_the_tests_or_the_benchmarks() -> None:
    for package in PACKAGES:
        for file, names in within(package):
            assert not of(names, "tests", "benchmarks"), file


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


UNSAFE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "joblib.load"}
UNSAFE |= {
    "dill.load",
    "dill.loads",
    "marshal.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "eval",
    "exec",
    "pandas.read_pickle",
}


@pytest.mark.parametrize("name", FILES)
def test_nothing_reads_what_could_run_code(name: str) -> None:
    from_pickle = {f"{module}.{what}" for module in ("pickle", "cloudpickle", "dill") for what in ("load", "loads")}
    assert not imported(FILES[name]) & from_pickle
    for function, call in calls(FILES[name]):
        assert function not in UNSAFE
        assert not function.endswith(".read_pickle")
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if function in ("torch.load", "load_file") or function.endswith("torch.load"):
            assert function.startswith("safetensors") or keywords.get("weights_only") == "True"
        if function in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") in (None, "False")
