"""Looks between the searcher, the trials and the store: asked for in a config, on record, and known to the next ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search.study import SearchSettings
from search.tune.looked import Looked
from tests.search.tune.test_searcher import Study, search_space
from trainables.records import names as n
from trainables.schedule import FAMILIES, Schedule
from trainables.settings import parse
from trainables.storage.store import Store
from trainables.trainable import fields_of
from trainables.tree import Tree

TRIALS = 14


@dataclass
class Looking(Study):
    """Trials that look as the trainable would, at values made up of addresses."""

    def results(self, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for fields in config.get(n.LOOKS, ()):
            address = self.tree.looks(parsed(fields))[-1].id
            self.tree.store.write_look(address, {n.ACCURACY: int(address[:4], 16) / 2**16, "measure": {}})
        for result in super().results({**fields_of(config), n.TRIAL: config[n.TRIAL]}):
            yield {**result, n.ACCURACY_RECALIBRATED: result[n.ACCURACY] - 0.1}


def parsed(fields: dict[str, Any]) -> Schedule:
    return parse(FAMILIES[fields["family"]], fields, "config")


@pytest.fixture
def make(tree: Tree, tmp_path: Path) -> Callable[..., Looking]:
    def study(name: str, **settings: Any) -> Looking:
        folder = tmp_path / name
        folder.mkdir()
        own = Tree(tree.problem, Store(folder / n.STEPS_FOLDER))
        given = SearchSettings(**{"trials": TRIALS, "looks": 2, **settings})
        return Looking(own, folder, search_space(), given)

    return study


def test_trials_are_told_what_to_look_at_and_the_next_ask_knows_it(make: Callable[..., Looking]) -> None:
    study = make("one", looks=4)
    search = study.search()
    study.run(search)
    looks = [config.get(n.LOOKS, ()) for config in study.configs]
    asked = [fields for some in looks for fields in some]
    addresses = [study.tree.looks(parsed(fields))[-1].id for fields in asked]
    assert max(map(len, looks)) == 4 and len(asked) > TRIALS  # fewer than four where little else is promised
    for config, some in zip(study.configs, looks, strict=True):  # a trial makes its own cuts, and looks at others
        own = {node.id for node in study.tree.looks(parsed(fields_of(config)))}
        assert own.isdisjoint(study.tree.looks(parsed(fields))[-1].id for fields in some)
    assert len(set(addresses)) == len(addresses)  # nothing is looked at twice
    found = search._looked.found()
    assert {address: found[address] for address in addresses} == {
        address: int(address[:4], 16) / 2**16 for address in addresses
    }
    assert {row[n.STEP_ID]: row[n.ACCURACY_RECALIBRATED] for row in study.ledger.points if row[n.TRIAL] is not None} == {
        step: found[step] for step in study.reported
    }


def test_a_study_without_looks_asks_for_none(make: Callable[..., Looking]) -> None:
    study = make("one", looks=0)
    study.run(study.search())
    assert not any(n.LOOKS in config for config in study.configs) and not study.tree.store.looks()


@pytest.mark.parametrize("trials", [5, 9])
def test_the_same_seed_looks_at_the_same_after_a_restart(trials: int, make: Callable[..., Looking]) -> None:
    """Also at what the trial was to look at that was under way when the driver died."""
    undisturbed, study = make("one"), make("two")
    undisturbed.run(undisturbed.search())
    search = study.search()
    for number in range(trials):
        config = search.suggest(str(number))
        for result in study.results(config):
            study.report(search, str(number), result)
    lost = search.suggest("lost")
    study.run(study.search())
    assert study.configs == undisturbed.configs[trials:] and lost == study.configs[0]
    assert sorted(study.tree.store.looks()) == sorted(undisturbed.tree.store.looks())


def test_looks_of_an_earlier_run_are_known_at_the_start(make: Callable[..., Looking]) -> None:
    study = make("one")
    for address in ("0123456789abcdef", "fedcba9876543210"):
        study.tree.store.write_look(address, {n.ACCURACY: 0.5, "measure": {}})
    study.search()
    looked = Looked(study.tree, study.ledger, ["0123456789abcdef", "0000000000000000"])
    assert looked.found() == {"0123456789abcdef": 0.5}
