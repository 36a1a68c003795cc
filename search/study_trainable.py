"""A trial of a study. What goes wrong in a step is its result; what Tune sees fail, and runs again, is a lost worker."""

from __future__ import annotations

import errno
from typing import Any

import torch

from trainables import names as n
from trainables.settings import one_line
from trainables.trainable import PruningTrainable

LOST_IN_A_ROW = 3
"""So often may a trial lose its worker, before it has finished one more step, and run again."""
STOPS = "stops"
"""The key of a result that is no step: why the study has to stop."""
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}
"""What every later step would run into too, until somebody makes room or repairs the disk."""


class StudyTrainable(PruningTrainable):
    """One trial of a study."""

    def step(self) -> dict[str, Any]:
        """One pruning step; its error is told as a result, because the next worker would run into it again."""
        try:
            return super().step()
        except torch.AcceleratorError:
            raise  # the GPU is of no use to this process any more, so another one tries
        except Exception as error:
            stops = isinstance(error, OSError) and error.errno in STORAGE_ERRORS
            return {STOPS if stops else n.REASON: f"{type(error).__name__}: {one_line(error)}", "done": True}
