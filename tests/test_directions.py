"""Which package may import which, and that nothing here reads a pickle; asserted on the source, not by importing it."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

PACKAGES = ("search", "trainables", "analysis")
FILES = {str(file.relative_to(ROOT)): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}
RECORDS = "trainables.records."
"""All of trainables that analysis may import: the vocabulary, and the checks of what it reads."""
LIGHT = {"yaml", "numpy", "moocore", "pydantic", "pydantic_core"}
"""What ``records`` may import beside the standard library: nothing that takes a second."""
# Rooms of each package, each of which may import those before it and never one after it.
FLOORS = {
    "trainables": (
        "records", "storage", "tasks", "data", "networks", "forms", "loading", "training", "pruning", "exporting",
        "measuring",
    ),
    "search": ("sampling", "cluster", "records", "tune", "stages"),
    "analysis": ("effects", "comparison", "page"),
}  # fmt: skip
MOST_MODULES = 12


@cache
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
        assert all(name.startswith(RECORDS) for name in of(names, "trainables")), file


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
    """What reads test images is in ``trainables.data.test_split``, and nothing but ``search.confirm`` can reach it."""
    split = "trainables.data.test_split"
    assert [file for file in FILES if any(name.startswith(split) for name in imported(FILES[file]))] == [
        "search/confirm.py"
    ]
    users = {
        name for names in (imported(FILES[file]) for file in FILES) for name in names if name.startswith("search.confirm")
    }
    assert users == {"search.confirm.confirm"}  # the command line's one entry
    for file in set(FILES) - {"trainables/data/test_split.py"}:
        assert not [name for name, _ in calls(FILES[file]) if name.endswith("held_out")], f"{file} asks for test images"
        readers = [node for node in ast.walk(tree_of(FILES[file])) if getattr(node, "name", None) == "held_out"]
        theirs = {id(inner) for reader in readers for inner in ast.walk(reader)}
        others = (call for _, call in calls(FILES[file], but=theirs))
        keywords = {(word.arg, ast.unparse(word.value)) for call in others for word in call.keywords}
        assert ("train", "False") not in keywords, f"{file} reads torchvision's test images"


def test_records_import_nothing_heavy() -> None:
    for file, names in within("trainables/records"):
        heavy = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - LIGHT
        assert heavy <= {"trainables"}, file
        assert all(name.startswith(RECORDS) for name in of(names, "trainables")), file


def test_rooms_import_only_the_rooms_below_them() -> None:
    for package, floors in FLOORS.items():
        for file, names in within(package):
            room = file.split("/")[1]
            above = floors[floors.index(room) + 1 :] if room in floors else ()
            assert not [name for name in names if name.startswith(tuple(f"{package}.{other}." for other in above))], file


def test_no_room_has_more_modules_than_a_newcomer_can_hold() -> None:
    rooms = Counter(str(Path(file).parent) for file in FILES if not file.endswith(("__init__.py", "__main__.py")))
    assert not {room: count for room, count in rooms.items() if count > MOST_MODULES}


def test_no_module_imports_one_that_imports_it() -> None:
    """At run time: what is imported for types alone doesn't count."""
    order = TopologicalSorter({module_of(file): ours(runtime_imports(FILES[file])) for file in FILES})
    order.prepare()  # CycleError names the circle


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def ours(names: set[str]) -> set[str]:
    """The modules of ours among these names: of ``a.b.c`` the longest beginning that is a module."""
    modules = {module_of(file) for file in FILES}
    parts = (name.split(".") for name in names)
    beginnings = ([".".join(some[:end]) for end in range(len(some), 0, -1)] for some in parts)
    return {found for some in beginnings if (found := next((name for name in some if name in modules), None))}


def runtime_imports(file: Path) -> set[str]:
    module = tree_of(file)
    typed = {
        id(inner)
        for node in ast.walk(module)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return {
        name
        for node in ast.walk(module)
        if id(node) not in typed and isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [f"{node.module}.{alias.name}" for alias in node.names]
        )
    }


def test_nothing_imports_the_tests_or_the_benchmarks() -> None:
    for package in PACKAGES:
        for file, names in within(package):
            assert not of(names, "tests", "benchmarks"), file


def calls(file: Path, but: Collection[int] = ()) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call) and id(node) not in but:
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


def test_no_file_but_its_own_compares_with_a_method_s_name() -> None:
    from search.methods import REGISTRIES  # noqa: PLC0415
    from trainables.records.objectives import OBJECTIVES  # noqa: PLC0415

    names = {name for registry in REGISTRIES.values() for name in registry} - {"linear", "fp32"}  # a decay, a precision
    names |= set(OBJECTIVES)
    for file, path in FILES.items():
        if file.startswith("analysis/comparison"):  # a report on one study, of whose recipes it tells
            continue
        for node in ast.walk(tree_of(path)):
            equal = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn)
            spelled = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)} if equal else set()
            assert not spelled & names, f"{file}: compares with {spelled & names}"
