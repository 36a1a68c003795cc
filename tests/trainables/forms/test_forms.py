"""Stored forms: what each keeps of a value, and that none of them takes more than it has to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.forms.forms import FORMS, Form, Int8
from trainables.forms.values import FLOAT16, FLOAT32, INT8, RAW, VALUES, Values

ROWS = torch.arange(4).repeat_interleave(20)


def there_and_back(way: Values, values: Tensor, row: Tensor) -> Tensor:
    planes = way.write(values, row)
    rows = len(row.unique())
    assert {name: len(plane) for name, plane in planes.items()} == way.lengths(len(values), rows, values.element_size())
    return way.read(planes, row, values.dtype)


def drawn(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(80, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_raw_is_exact_for_every_type(kind: torch.dtype) -> None:
    values = (10 * drawn()).to(kind)
    assert torch.equal(there_and_back(RAW, values, ROWS), values)


def test_fp32_is_exact_to_the_last_bit() -> None:
    values = torch.cat([drawn(), torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-45, -3e38])])
    row = torch.zeros(len(values), dtype=torch.int64)
    assert torch.equal(there_and_back(FLOAT32, values, row).view(torch.int32), values.view(torch.int32))


def test_fp16_rounds_to_the_nearest() -> None:
    assert torch.equal(there_and_back(FLOAT16, drawn(), ROWS), drawn().half().float())


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_int8_is_within_half_a_level_of_its_own_channel(scale: float) -> None:
    """A level is a 127th of the channel's largest value, rounded up to fp16 (by 1/1024, or 2^-24)."""
    values = drawn(scale) * torch.tensor([1.0, 0.1, 10.0, 0.5]).repeat_interleave(20)
    error = (there_and_back(INT8, values, ROWS) - values).abs().view(4, 20)
    level = values.abs().view(4, 20).amax(dim=1, keepdim=True) / 127
    assert (error <= torch.maximum(level * (1 + 2**-10), level + 2**-24) / 2 * (1 + 1e-5)).all()


def test_int8_has_a_scale_for_each_channel_that_has_a_value_and_keeps_zeros() -> None:
    values, row = torch.tensor([0.0, 0.0, 127.0, -127.0, 1.0]), torch.tensor([1, 1, 7, 7, 7])
    assert len(INT8.write(values, row)["fp16.low"]) == 2
    assert torch.equal(there_and_back(INT8, values, row), values)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_a_form_cannot_hold_is_not_written_in_it(form: type[Form]) -> None:
    for values in (1e30 * drawn(), torch.arange(80), drawn().double()):
        way = form().values(values, ROWS, matrix=True)
        assert torch.equal(there_and_back(way, values, ROWS), values)


def test_int8_is_for_weights_that_are_more_than_their_scales() -> None:
    form = Int8()
    assert form.values(drawn(), ROWS, matrix=True) is INT8
    assert form.values(drawn(), ROWS, matrix=False) is FLOAT16  # biases, and what normalises
    assert form.values(drawn(), torch.arange(80) // 2, matrix=True) is FLOAT16  # a scale of 2 bytes saves 2 values of 1


def test_codes_name_one_way_each() -> None:
    assert all(VALUES[way.code] is way for way in VALUES.values())
    assert all(form.source or form.name == "fp32" for form in FORMS.values())
