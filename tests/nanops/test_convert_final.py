"""What becomes of NaN before a choice between classes, a linear layer or a mean; and is it reported?"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nanops
from nanops import ConversionError
from tests.nanops.images import same_bits
from tests.nanops.nets import Tail, image, seeded
from tests.nanops.test_convert import tied

ZEROED = {
    "linear": lambda m, y: m.linear(y),
    "adaptive_avg_pool2d": lambda m, y: nn.AdaptiveAvgPool2d(2)(y),
    "avg_pool2d": lambda m, y: F.avg_pool2d(y, 2),
    "mean": lambda m, y: y.mean((2, 3)),
    "sum": lambda m, y: torch.sum(y, 1),
    "softmax": lambda m, y: y.softmax(1),
    "log_softmax": lambda m, y: F.log_softmax(y, dim=1),
    "argmax": lambda m, y: torch.argmax(input=y, dim=2),
    "max": lambda m, y: y.max(2).values,
    "topk": lambda m, y: y.topk(2, 3).values,
}


@pytest.mark.parametrize("name", ZEROED)
def test_nan_is_zero_before_it_and_counted(name):
    tail = ZEROED[name]
    model = seeded(Tail(tail, linear=nn.Linear(16, 3)))
    nan = tied(image())
    with nanops.count_skipped(model), nanops.count_skipped(converted := nanops.convert(model)) as skipped:
        y = converted(image())
    assert same_bits(y, tail(model, nan.nan_to_num(nan=0.0)))
    (found,) = skipped.replaced
    assert found.operator == name and found.layer == ("linear" if name == "linear" else "")
    assert torch.equal(found.nans, nan.isnan().sum((1, 2, 3)))


@pytest.mark.parametrize("name", [n for n in ZEROED if "softmax" not in n])
def test_keeping_nan_refuses_what_cannot_keep_it(name):
    model = seeded(Tail(ZEROED[name], linear=nn.Linear(16, 3)))
    with pytest.raises(ConversionError, match=f"a NaN reached {name}.*final='keep'"):
        nanops.convert(model, final="keep")(image())


def test_a_kept_nan_passes_a_softmax_at_its_pixel():
    y = nanops.convert(Tail(lambda m, y: y.softmax(1)), final="keep")(image())
    assert torch.equal(y.isnan(), tied(image()).isnan())


def test_the_maximum_of_two_tensors_is_no_choice():
    y = nanops.convert(Tail(lambda m, y: torch.max(y, -y)), final="keep")(image())
    assert same_bits(y, tied(image()).abs())


def three_classes(m, y):
    return torch.cat([y, y - 1, 2 - y], 1)


def test_background_is_what_argmax_chooses_where_nan_was():
    x = image()
    nan = tied(x)[:, 0].isnan()
    outside = nanops.convert(Tail(three_classes), final="background", background=2)(x).argmax(1)
    inside = nanops.convert(Tail(lambda m, y: three_classes(m, y).argmax(1)), final="background", background=2)(x)
    assert torch.equal(outside, inside) and nan.any() and (inside[nan] == 2).all()
    assert torch.equal(inside[~nan], three_classes(None, tied(x)).argmax(1)[~nan])


def test_background_knows_classes_along_one_axis_only():
    with pytest.raises(ConversionError, match="along axis 2 meets a NaN"):
        nanops.convert(Tail(lambda m, y: y.argmax(2)), final="background")(image())


def test_the_output_is_reported():
    converted = nanops.convert(Tail(lambda m, y: y))
    with nanops.count_skipped(converted) as skipped:
        converted(image())
    (found,) = skipped.replaced
    assert (found.layer, found.operator) == ("", "output")
    assert torch.equal(found.nans, tied(image()).isnan().sum((1, 2, 3)))


def test_nothing_is_reported_where_nothing_was_replaced():
    converted = nanops.convert(Tail(lambda m, y: y.mean()), None)
    with nanops.count_skipped(converted) as skipped:
        converted(image())
    assert skipped.replaced == []
