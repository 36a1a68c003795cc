"""What is on record of the openings of the test split."""

from __future__ import annotations

from pathlib import Path

from search.records.openings import record_opening
from trainables.records import names as n


def test_networks_on_fresh_seeds_are_counted_with_those_opened_before(tmp_path: Path) -> None:
    assert record_opening(tmp_path, 3) is None
    (tmp_path / n.CONFIRMATION_FOLDER).mkdir()
    for place, count in ((tmp_path, 1), (tmp_path / n.CONFIRMATION_FOLDER, 2)):
        (place / n.CONFIRMED_FILE).write_text('{"step_id": "a"}\n' * count)
    assert record_opening(tmp_path, 2) == "The test split was opened once before, for 3 networks."
