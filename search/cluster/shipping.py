"""A network in memory on its way to Ray's workers: its code goes along, because they may find another there, or none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ray import cloudpickle
from torch import nn

from trainables import own
from trainables.records.names import InputError
from trainables.settings import one_line


@contextmanager
def shipped(model: nn.Module | None) -> Iterator[None]:
    """Have the user's own modules that a network is made of pickled with it; InputError if it can't be pickled."""
    if model is None:
        yield
        return
    named = {kind.__module__ for layer in model.modules() for kind in type(layer).__mro__}
    modules = {name for module in named for name in own.modules_of(module) if name in sys.modules}
    with ExitStack() as stack:
        for name in sorted(modules - cloudpickle.list_registry_pickle_by_value()):
            cloudpickle.register_pickle_by_value(sys.modules[name])
            stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[name])
        try:
            cloudpickle.dumps(model)
        except Exception as error:  # what an attribute of the user's own raises can be anything
            raise InputError(
                f"model: can't be sent to Ray's workers ({one_line(error)}); remove what isn't part of the network"
            ) from error
        yield
