"""What a worker imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import ROOT

IMPORTED = """
import sys
sys.path.insert(0, sys.argv[1])
import trainables.trainable
print([name for name in ("timm", "torchvision", "torch._dynamo") if name in sys.modules])
import timm
print(timm.__file__.startswith(sys.argv[1]))
"""


def test_a_worker_imports_no_timm_and_a_network_of_the_user_s_own_still_can(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("import torchvision")
    command = [sys.executable, "-c", IMPORTED, str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
    assert said.splitlines() == ["[]", "True"]
