"""Where the user's own callbacks write what they log of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.storage import StorageContext

from trainables.records import names as n


class StudyLogs(StorageContext):
    """Tune's storage of a trial, with the folder that callbacks write to (``trial.local_path``) in the study's own.

    Tune's is in Ray's temporary folder, and is copied when all has ended to where nothing of ours stays.
    """

    logs: Path

    @classmethod
    def of(cls, storage: StorageContext, logs: Path) -> StudyLogs:
        """A trial's storage, but for that folder."""
        made = cls.__new__(cls)
        made.__dict__.update(vars(storage), logs=logs)
        return made

    @property
    def trial_driver_staging_path(self) -> str:
        """The folder of a trial on the driver's machine, which is there as soon as something is logged."""
        assert self.trial_dir_name is not None, "a trial has its folder's name before it starts"
        return str(self.logs / self.trial_dir_name)


class LogsBeside(tune.Callback):
    """Has the callbacks after it write to ``logs/`` of the study's folder, where that is seen while the study runs."""

    def __init__(self, folder: Path) -> None:
        self._logs = folder.absolute() / n.LOGS_FOLDER

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """A trial begins, or begins again."""
        if not isinstance(trial.storage, StudyLogs):
            trial.storage = StudyLogs.of(trial.storage, self._logs)


def folder_name(trial: Any) -> str:
    """The name of a trial's folder: the number that it has among the points."""
    return f"trial_{trial.config[n.TRIAL]:05}"
