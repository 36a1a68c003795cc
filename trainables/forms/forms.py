"""How a network's values are stored to be shipped. A form costs no epochs, and is measured by itself."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from trainables.forms.values import FLOAT16, FLOAT32, INT8, RAW, Values, numbered
from trainables.methods import Method, Registry
from trainables.records import names as n


class Form(Method):
    """Chooses how the values of each tensor are written; all are written in one file format, ``compact``."""

    @abstractmethod
    def values(self, values: Tensor, row: Tensor, *, matrix: bool) -> Values:
        """How to write the kept values of a tensor, which are of these rows (output channels).

        ``matrix`` says whether the tensor has more than one dimension, as weights have and biases don't.
        """


class Fp32(Form):
    """Every value to the last bit."""

    name = n.FP32

    def values(self, values: Tensor, row: Tensor, *, matrix: bool) -> Values:  # noqa: ARG002
        """What isn't fp32 stays as it is, in every form."""
        return FLOAT32 if FLOAT32.holds(values, row) else RAW


class Fp16(Form):
    """Half precision, rounded to the nearest."""

    name = "fp16"
    source = "IEEE 754-2008, binary16"

    def values(self, values: Tensor, row: Tensor, *, matrix: bool) -> Values:
        """What fp16 can't hold stays fp32."""
        return FLOAT16 if FLOAT16.holds(values, row) else Fp32().values(values, row, matrix=matrix)


class Int8(Form):
    """Weights in 8 bits, symmetric with a scale for each output channel; everything small in fp16."""

    name = "int8"
    source = "Krishnamoorthi 2018, arXiv:1806.08342"

    def values(self, values: Tensor, row: Tensor, *, matrix: bool) -> Values:
        """A tensor whose scales take what its values save stays fp16."""
        saves = matrix and len(values) > 2 * numbered(row)[0]
        return INT8 if saves and INT8.holds(values, row) else Fp16().values(values, row, matrix=matrix)


FORMS = Registry[Form](n.FORM, Form, (Fp32, Fp16, Int8))
