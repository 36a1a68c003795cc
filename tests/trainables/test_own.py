"""Code of the user's own: what its identity is made of, found without running it, and that it runs only where it may."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainables import own
from trainables.records.names import InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own.cached_hash.cache_clear()
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def hash_after(file: Path, text: str, name: str) -> str:
    write(file, text)
    own.cached_hash.cache_clear()
    return own.source_hash(name)


def test_the_hash_follows_the_module_its_package_and_what_it_imports_beside_it(here: Path) -> None:
    write(here / "own_nets_a.py", "raise SystemExit('never run')\nimport own_layers_a\n")
    write(here / "own_layers_a.py", "ACTIVATION = 'relu'\n")
    before = own.source_hash("own_nets_a:net")
    assert hash_after(here / "unrelated_a.py", "1\n", "own_nets_a:net") == before
    changed = hash_after(here / "own_layers_a.py", "ACTIVATION = 'sigmoid'\n", "own_nets_a:net")
    assert changed != before
    assert hash_after(here / "own_layers_a.py", "ACTIVATION = 'relu'\n", "own_nets_a:net") == before


def test_the_hash_of_a_package_has_all_that_is_below_it(here: Path) -> None:
    for name in ("__init__", "nets", "parts/__init__", "parts/block"):
        write(here / "own_package_b" / f"{name}.py", "")
    before = own.source_hash("own_package_b.nets:net")
    assert hash_after(here / "own_package_b" / "parts" / "block.py", "x = 1\n", "own_package_b.nets:net") != before


def test_a_relative_import_is_followed(here: Path) -> None:
    write(here / "own_package_c" / "__init__.py", "")
    write(here / "own_package_c" / "nets.py", "from . import blocks\nfrom .blocks import Block\n")
    write(here / "own_package_c" / "blocks.py", "import own_beside_c\n")
    write(here / "own_beside_c.py", "x = 1\n")
    before = own.source_hash("own_package_c.nets:net")
    assert hash_after(here / "own_beside_c.py", "x = 2\n", "own_package_c.nets:net") != before


def test_a_module_s_sources_are_read_once_for_all_that_it_has(here: Path) -> None:
    write(here / "own_nets_g.py", "def a(): pass\ndef b(): pass\n")
    assert own.source_hash("own_nets_g:a") == own.source_hash("own_nets_g:b")
    assert own.cached_hash.cache_info().misses == 1


def test_an_import_is_found_in_any_block(here: Path) -> None:
    names = [f"own_inner_f{place}" for place in range(6)]
    for name in names:
        write(here / f"{name}.py", "")
    blocks = "try:\n    {}\nexcept ImportError:\n    {}\nelse:\n    {}\nfinally:\n    {}\n"
    blocks += "class A:\n    def f(self, kind):\n        match kind:\n            case 1:\n                {}\n"
    blocks += "if True: pass\nelse:\n    {}\n"
    write(here / "own_nets_f.py", blocks.format(*(f"import {name}" for name in names)))
    assert set(own._sources("own_nets_f")) == {"own_nets_f", *names}


def test_what_is_installed_or_this_program_is_no_part_of_it(here: Path) -> None:
    write(here / "own_nets_d.py", "import torch, json\nfrom trainables import tree\n")
    assert set(own._sources("own_nets_d")) == {"own_nets_d"}


def test_nothing_is_imported_that_is_not_trusted(here: Path) -> None:
    write(here / "own_nets_e.py", "def net(): pass\n")
    with pytest.raises(InputError, match="add --allow-code"):
        own.load("own_nets_e:net", "model.name", "factory", trusted=False)
    assert "own_nets_e" not in sys.modules
    assert own.load("own_nets_e:net", "model.name", "factory", trusted=True) is not None
    with pytest.raises(InputError, match=r"has no factory 'nett'.*did you mean"):
        own.load("own_nets_e:nett", "model.name", "factory", trusted=True)
