"""Does the gate count what rounding took?"""

import pytest

from mcaprobe.gate import below, gated_bits
from mcaprobe.summary import Row


def row(layer="a", region="all", bits=None, **shares):
    return Row(layer, "Conv2d", region, (1, 2), 2, bits_mean=bits, **{f"share_{k}": v for k, v in shares.items()})


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (row(bits=12.0, number=1.0), 12.0),
        (row(bits=12.0, number=0.5, noise=0.5), 6.0),
        (row(bits=12.0, number=0.5, zero=0.25, exact=0.25), 12.0),
        (row(number=0.0, noise=1.0), 0.0),
        (row(number=0.0, nan=1.0), 0.0),
        (row(number=0.0, zero=1.0), None),
        (row(number=0.0, shifted=1.0), None),
        (Row("p.indices", "pool", "all", (1,), 1, index_change_rate=0.9), None),
    ],
    ids=["numbers", "half-noise", "zeros-do-not-count", "noise", "nan", "zero", "shifted", "indices"],
)
def test_bits_of_the_gate(case, expected):
    assert gated_bits(case) == expected


def test_the_brain_decides_where_there_is_a_mask():
    rows = [
        row(region="all", bits=2.0, number=1.0),
        row(region="brain", bits=9.0, number=1.0),
        row(region="background", bits=1.0, number=1.0),
    ]
    assert below(rows, 8) == []
    assert [(f.layer, f.region, f.bits) for f in below(rows, 10)] == [("a", "brain", 9.0)]


def test_a_layer_at_the_gate_passes():
    assert below([row(bits=8.0, number=1.0)], 8.0) == []
