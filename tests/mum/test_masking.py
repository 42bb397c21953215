"""Masks as a function of noise, noise as a function of its keys."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mum.masking import mask_noise, uniform_mask


@given(
    patches=st.integers(2, 300),
    ratio=st.floats(0, 0.999),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_mask_keeps_the_smallest_noise(patches, ratio, seed):
    noise = mask_noise(seed, 0, 0, (3, patches))
    kept = int(patches * (1 - ratio))
    if not 0 < kept < patches:
        with pytest.raises(ValueError, match="mask ratio"):
            uniform_mask(noise, ratio)
        return
    keep, place, mask, decoded = uniform_mask(noise, ratio)
    assert decoded is None
    assert keep.shape == (3, kept)
    assert mask.sum(dim=1).tolist() == [patches - kept] * 3
    assert not mask.gather(1, keep).any()
    assert (noise.gather(1, keep).amax(1) <= noise.masked_fill(mask == 0, 2).amin(1)).all()
    assert torch.equal(place.gather(1, keep), torch.arange(kept).expand(3, -1))


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_mask_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match="not in"):
        uniform_mask(torch.rand(1, 4), ratio)


def test_noise_is_pinned():
    """These numbers may never change: runs in progress would see other masks."""
    noise = mask_noise(1, 2, 3, (2, 2))
    assert noise.dtype == torch.float32
    assert (noise * 2**24).int().tolist() == [[1553378, 6961549], [7118805, 3417161]]


def test_noise_is_keyed_by_all_three_and_uniform():
    draws = [mask_noise(*key, (400,)) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2, 0))]
    values = torch.cat(draws)
    assert len(values.unique()) > 1990
    assert 0 <= values.min() < values.max() < 1
    assert abs(values.mean() - 0.5) < 0.03
    assert torch.equal(mask_noise(0, 0, 0, (800,))[:400], draws[0])


def test_noise_refuses_negative_keys():
    with pytest.raises(ValueError, match="negative"):
        mask_noise(-1, 0, 0, (2,))


@given(patches=st.integers(2, 300), fraction=st.floats(0.001, 1), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_decoded_are_the_masked_patches_with_the_smallest_noise(patches, fraction, seed):
    noise = mask_noise(seed, 0, 0, (3, patches))
    _, _, mask, decoded = uniform_mask(noise, 0.5, fraction)
    masked = patches - patches // 2
    count = max(1, round(fraction * masked))
    if count == masked:
        assert decoded is None
        return
    assert decoded.shape == (3, count)
    assert mask.gather(1, decoded).all()
    rest = mask.bool().scatter(1, decoded, False)
    assert (noise.gather(1, decoded).amax(1) <= noise.masked_fill(~rest, 2).amin(1)).all()


@pytest.mark.parametrize("fraction", [0.0, 1.01, float("nan")])
def test_decode_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(ValueError, match="not in"):
        uniform_mask(torch.rand(1, 4), 0.5, fraction)
