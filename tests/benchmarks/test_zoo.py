"""The zoo's table: which networks it still lacks, and how rows come into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import zoo
from benchmarks.zoo_row import NOT_LOOKED_AT


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo, "TABLE", tmp_path / "zoo.csv")
    return tmp_path / "zoo.csv"


def test_a_network_that_was_only_named_is_looked_at_once_it_may_be_as_large(table: Path) -> None:
    assert zoo.looked_at(zoo.rows(), 6e7) == set()
    for name, parameters, fault in (("small", 10**6, ""), ("large", 10**8, f"{NOT_LOOKED_AT}: more"), ("bad", "", "died")):
        zoo._write({"network": name, "parameters": parameters, "fault": fault})
    assert zoo.looked_at(zoo.rows(), 6e7) == {"small", "large", "bad"}
    assert zoo.looked_at(zoo.rows(), 2e8) == {"small", "bad"}


def test_a_row_takes_the_place_of_an_older_one(table: Path) -> None:
    for oracle in (1e-15, 2e-15):
        zoo._write({"network": "one", "parameters": 5, "oracle": oracle})
        zoo._write({"network": "two", "parameters": 6, "oracle": 0.0})
    assert zoo.rows()[["network", "parameters", "oracle"]].to_numpy().tolist() == [
        ["one", "5", "2e-15"],
        ["two", "6", "0.0"],
    ]
    zoo.write_markdown()
    assert "| two | " in table.with_suffix(".md").read_text()


def test_the_committed_table_has_no_network_that_is_wrong_or_fails() -> None:
    found = zoo.rows()
    assert found["network"].is_unique
    looked = found[~found["fault"].str.startswith(NOT_LOOKED_AT)]
    assert len(looked) >= 60 and (looked["fault"] == "").all()
    assert looked.loc[looked["oracle"] != "", "oracle"].astype(float).max() < 1e-9
