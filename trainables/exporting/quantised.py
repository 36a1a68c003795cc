"""ONNX files that compute in 8 bits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from trainables.data.dataset import Data
from trainables.data.preparation import as_evaluated
from trainables.exporting.base import File
from trainables.exporting.onnx_file import Onnx, runner, serialised
from trainables.exporting.programs import IMAGES, fed, refused
from trainables.networks.network import Network
from trainables.problem import Problem
from trainables.training.feeding import tensors, training_tensors

BATCH = 64


class OnnxInt8(Onnx):
    """ONNX in int8, by onnxruntime's static quantisation: QDQ, weights per channel, BatchNorm folded."""

    name = "onnx_int8"
    source = "onnxruntime"
    fold: bool = Field(True, description="whether BatchNorm is folded into the layer before it")
    calibration_images: int = Field(256, ge=1, description="training images that the ranges of activations come from")

    def encode(self, network: Network, problem: Problem, about: Mapping[str, Any]) -> File:
        """The fp32 file compared with the network, then quantised, and both measured on the validation images."""
        model, notes = self.translated(network, problem, about)
        whole = serialised(model, self.name)
        run = runner(whole, problem.threads, self.name)
        told = self.checked(run, network, problem)
        with refused(self.name):
            content = self._quantised(model, problem.data)
            quantised = runner(content, problem.threads, self.name)
            values = [self._measured(one, problem.data) for one in (run, quantised)]
        measure = problem.data.task.quality
        before, after = (measure.told(value) for value in values)
        count = min(self.calibration_images, len(problem.data.train_images))
        return File(
            content,
            (
                f"In int8: {measure.name} {after} on the validation images, {len(content):,} bytes. "
                f"In fp32: {before}, {len(whole):,} bytes.",
                f"Ranges of activations are those of {count} training images.",
                f"Before quantisation: {told[0].lower()}{told[1:]}",
                *notes,
            ),
        )

    def _quantised(self, model: Any, data: Data) -> bytes:
        import onnx  # noqa: PLC0415 - not everybody has them
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static  # noqa: PLC0415

        batches = ({IMAGES: some.numpy()} for some in self._calibration(data))

        class Reader(CalibrationDataReader):  # type: ignore[misc] # untyped
            def get_next(self) -> dict[str, Any] | None:
                return next(batches, None)

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "quantised.onnx"
            inferred = onnx.shape_inference.infer_shapes(model)
            quantize_static(inferred, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
            return target.read_bytes()

    def _calibration(self, data: Data) -> Iterator[Tensor]:
        images, labels = training_tensors(data, "cpu")
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[: self.calibration_images]
        for some in order.split(BATCH):
            yield fed(as_evaluated(images[some], data), data, self.preprocessing)

    def _measured(self, run: Callable[[Tensor], Tensor], data: Data) -> float:
        images, targets = tensors(data.validation_images, data.validation_labels, "cpu")
        kept = [data.task.kept(run(fed(some, data, self.preprocessing))) for some in images.split(BATCH)]
        return float(data.task.measure(torch.cat(kept), targets.cpu()))
