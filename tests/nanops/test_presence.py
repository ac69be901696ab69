"""Is a NaN found wherever it is, and nothing else taken for one?"""

import pytest
import torch

from nanops.functional.presence import has_nan

FORMATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_one_nan_is_found_and_infinities_of_both_signs_are_none(dtype: torch.dtype) -> None:
    values = torch.tensor([[1.0, torch.inf], [-torch.inf, 0.0]])
    assert not has_nan(values.to(dtype))
    values[1, 1] = torch.nan
    assert has_nan(values.to(dtype))
