"""ONNX files, which most runtimes read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.exporting.base import File
from trainables.exporting.programs import IMAGES, LOGITS, Program, refused
from trainables.networks.network import Network
from trainables.problem import Problem

REQUIRES = ("onnx==1.23.2", "onnxruntime==1.32.0", "onnxscript==0.7.2")
"""As in ``pyproject.toml``."""

USAGE = """\
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
images = np.zeros({shape}, np.{kind})  # [N, C, H, W], {takes}
outputs = session.run(None, {{"images": images}})[0]
print({answer})"""


class Onnx(Program):
    """ONNX for batches of any size, compared by onnxruntime; class names and measures are in its metadata."""

    name, suffix = "onnx", ".onnx"
    requires: ClassVar = REQUIRES

    def encode(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> File:
        """The program, read back by onnxruntime and compared."""
        model, notes = self.translated(network, problem, about)
        content = serialised(model, self.name)
        told = self.checked(runner(content, problem.threads, self.name), network, problem)
        return File(content, (told, *notes))

    def translated(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
        """The network as an ``onnx.ModelProto``, and what to tell of it."""
        program, notes = self.captured(network, problem)
        with refused(self.name):
            from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # noqa: PLC0415 - not everybody has them
            from onnxscript import optimizer  # noqa: PLC0415

            made = torch.onnx.export(
                program, input_names=[IMAGES], output_names=[LOGITS], dynamic_shapes=({0: "batch"},), dynamo=True,
                verbose=False, optimize=self.fold,
            )  # fmt: skip
            assert made is not None
            if not self.fold:  # the exporter's own optimisation would fold BatchNorm
                optimizer.fold_constants(made.model)
                optimizer.remove_unused_nodes(made.model)
            ClearMetadataAndDocStringPass()(made.model)  # it tells where on this machine the network's code is
            made.model.metadata_props.update(self._metadata(problem, about))
            return made.model_proto, notes

    def _metadata(self, problem: Problem, about: Mapping[str, Any]) -> dict[str, str]:
        found = {"classes": problem.data.classes, "takes": self.takes(problem), **about}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}

    def usage(self, file: str, problem: Problem) -> str:
        """By onnxruntime alone."""
        kind = "uint8" if self.preprocessing == "uint8" else "float32"
        shape, answer = (1, *problem.data.shape), problem.data.task.answer("outputs", "classes")
        return USAGE.format(file=file, shape=shape, kind=kind, takes=self.takes(problem), answer=answer)


def serialised(model: Any, name: str) -> bytes:
    """The bytes of an ``onnx.ModelProto``; InputError if they are more than such a file can have."""
    with refused(name):
        content: bytes = model.SerializeToString()
        return content


def runner(content: bytes, count: int, name: str) -> Callable[[Tensor], Tensor]:
    """What onnxruntime computes of a file's content, on ``count`` threads of the CPU."""
    with refused(name):
        made = session(content, count)
        return lambda images: torch.from_numpy(made.run([LOGITS], {IMAGES: images.numpy()})[0])


def session(content: bytes, count: int, *, flushing: bool = False) -> Any:
    """onnxruntime's session of a file's content, on ``count`` threads of the CPU; ``flushing`` takes denormals for 0."""
    import onnxruntime  # noqa: PLC0415 - not everybody has it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = count, 3
    options.add_session_config_entry("session.set_denormal_as_zero", str(int(flushing)))
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
