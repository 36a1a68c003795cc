"""Which output of a network is the logits, where it gives several, in evaluation or only while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

LOGITS = "logits"


def only_logits(model: nn.Module, name: str | None) -> None:
    """Let ``model`` give its logits alone. Losses of other outputs (auxiliary heads) have no part in training then."""
    model.register_forward_hook(partial(_pick, name))


def _pick(name: str | None, _model: nn.Module, _inputs: Any, output: Any) -> Any:
    return output if isinstance(output, Tensor) else logits(output, name)


def logits(output: Any, name: str | None) -> Any:
    """The output of this name, or the one that is called logits, or the first tensor; ``output`` itself without any.

    ValueError if there is none of this name.
    """
    named = dict(output) if isinstance(output, Mapping) else _fields(output)
    if name is not None:
        if name not in named:
            raise ValueError(
                f"model.output: no output is called {name!r}; there are {', '.join(map(str, named)) or 'no names'}"
            )
        return named[name]
    if isinstance(named.get(LOGITS), Tensor):
        return named[LOGITS]
    parts = list(named.values()) or (output if isinstance(output, list | tuple) else [])
    return next((part for part in parts if isinstance(part, Tensor)), output)


def _fields(output: Any) -> dict[str, Any]:
    """The parts of a named tuple."""
    return output._asdict() if hasattr(output, "_asdict") else {}
