"""The pages of docs/ as a site: every link leads somewhere, and what pages show is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

pytest.importorskip("mkdocs", reason="the extra docs")


def test_the_site_has_what_its_pages_show(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    assert done.returncode == 0, done.stderr
    for page in ROOT.glob("docs/*.md"):
        for figure in (
            line.partition("](../")[2].rstrip(")") for line in page.read_text().splitlines() if line[:2] == "!["
        ):
            assert (tmp_path / "site" / figure).is_file(), f"{page.name}: {figure}"
    assert (tmp_path / "site/results/comparison/report/comparison_bytes.png").is_file()
