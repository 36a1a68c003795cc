"""All data sets that a study can name."""

from __future__ import annotations

from trainables import own
from trainables.data.sets.base import DataSet
from trainables.data.sets.cifar10 import Cifar10
from trainables.data.sets.datasets import NOT_IMAGES, NOT_MIRRORED, TORCHVISION, Own, Torchvision
from trainables.data.sets.digits import Digits
from trainables.data.sets.folder import Folder
from trainables.data.sets.table import Table
from trainables.methods import Registry
from trainables.records.names import InputError
from trainables.settings import nearest


class _NotMirrored(Torchvision):
    mirrored = False


class DataSets(Registry[DataSet]):
    """Data sets by name; torchvision's, and the user's own, by the function or class that makes them."""

    def load(self, name: str, *, trusted: bool) -> type[DataSet]:
        """The class of the data set of this name; InputError if there is none, or it is the user's and not ``trusted``."""
        if name.startswith(TORCHVISION):
            _check_known(name)
            return _NotMirrored if name.removeprefix(TORCHVISION) in NOT_MIRRORED else Torchvision
        if own.is_own(name):
            own.load(name, "dataset", "function", trusted=trusted)
            return Own
        if name in (Torchvision.name, Own.name):
            raise InputError(f"{self.field}: {name!r} stands for many names; write yours")
        return super().load(name, trusted=trusted)


def _check_known(name: str) -> None:
    from torchvision import datasets  # noqa: PLC0415 - a second and a half that few need

    known = [one for one in datasets.__all__ if one not in NOT_IMAGES]
    if (short := name.removeprefix(TORCHVISION)) not in known:
        raise InputError(f"dataset: torchvision has no data set {short!r}; {nearest(short, known)}")


DATASETS = DataSets("dataset", DataSet, (Digits, Cifar10, Folder, Table, Torchvision, Own))
