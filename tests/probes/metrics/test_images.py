"""PSNR and SSIM against values worked out by hand and against scikit-image and torchmetrics."""

import numpy as np
import pytest
import torch
from skimage import metrics
from torchmetrics.functional.image import structural_similarity_index_measure

from probes.metrics.images import psnr, ssim


def pictures(shape: tuple[int, int, int] = (40, 33, 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = np.stack([0.5 + 0.4 * np.sin(x / 3 + c) * np.cos(y / 5) for c in range(shape[2])], axis=-1)
    return np.clip(truth + rng.normal(0, 0.1, shape), 0, 1), truth


def test_psnr_worked_out_by_hand() -> None:
    truth = np.zeros((4, 4, 3))
    assert psnr(truth + 0.1, truth) == pytest.approx(20)
    assert psnr(truth, truth) == float("inf")


def test_psnr_agrees_with_skimage() -> None:
    picture, truth = pictures()
    assert psnr(picture, truth) == pytest.approx(
        metrics.peak_signal_noise_ratio(truth, picture, data_range=1)
    )


def test_ssim_of_flat_pictures_worked_out_by_hand() -> None:
    a, b = np.full((12, 12, 3), 0.2), np.full((12, 12, 3), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))


def test_ssim_agrees_with_skimage() -> None:
    picture, truth = pictures()
    theirs = metrics.structural_similarity(
        truth,
        picture,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
    )
    assert ssim(picture, truth) == pytest.approx(theirs, abs=1e-12)


def test_ssim_agrees_with_torchmetrics_inside() -> None:
    picture, truth = pictures()
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (picture, truth))
    _, full = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    # Theirs also counts windows that stand over the border.
    assert ssim(picture, truth) == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), abs=1e-6)


def test_equal_pictures_are_alike_and_order_does_not_matter() -> None:
    picture, truth = pictures()
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(picture, truth) == pytest.approx(ssim(truth, picture))


def test_bytes_and_small_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="float"):
        psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="11 px"):
        ssim(np.zeros((10, 40, 3)), np.zeros((10, 40, 3)))
