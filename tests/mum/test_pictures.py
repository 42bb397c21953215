"""Pictures: what must be in which pixel."""

import numpy as np
import torch

from mum import pictures
from mum.masked import patchify


def views(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 16, 24), dtype=torch.uint8, generator=generator)


def tile(picture: np.ndarray, row: int, column: int) -> torch.Tensor:
    y, x = row * (16 + pictures.GAP), column * (24 + pictures.GAP)
    return torch.from_numpy(picture[y : y + 16, x : x + 24].copy()).permute(2, 0, 1)


def test_perfect_predictions_paint_the_original(tiny):
    images = views()
    target = patchify(tiny.normalise(images), 8)
    normalised = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    mask = (torch.rand(2, 6) < 0.5).float()
    for pred, normed in ((normalised, True), (target, False)):
        picture = pictures.reconstruction_picture(images, pred, mask, 8, norm_pix_loss=normed)
        assert picture.shape == (3 * 16 + 2 * pictures.GAP, 2 * 24 + pictures.GAP, 3)
        for view in range(2):
            assert torch.equal(tile(picture, 0, view), images[view])
            assert torch.equal(tile(picture, 2, view), images[view])


def test_masked_row_hides_masked_patches_only():
    images = views()
    mask = torch.zeros(2, 6)
    mask[1, 4] = 1  # second row, second patch: rows 8..16, columns 8..16
    picture = pictures.reconstruction_picture(images, torch.zeros(2, 6, 192), mask, 8)
    expected = images.clone()
    expected[1, :, 8:16, 8:16] = pictures.MASKED_GREY
    for view in range(2):
        assert torch.equal(tile(picture, 1, view), expected[view])


def test_kept_patches_are_pasted_whatever_was_predicted():
    images = views()
    mask = torch.ones(2, 6)
    mask[0, 0] = 0
    picture = pictures.reconstruction_picture(images, torch.zeros(2, 6, 192), mask, 8)
    painted = tile(picture, 2, 0)
    assert torch.equal(painted[:, :8, :8], images[0, :, :8, :8])
    # A prediction of zero is the mean of the true patch.
    mean = images[0, :, :8, 8:16].float()
    mean = (mean / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    grey = mean.mean() * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])
    assert ((painted[:, :8, 8:16].float() - 255 * grey.view(3, 1, 1)).abs() <= 0.51).all()


def test_pca_finds_the_directions_of_variance():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 9, 0.1, 4, 0.2])
    features = torch.randn(4000, 5, generator=generator) * spread + 7
    mean, directions, scale = pictures.fit_pca(features)
    torch.testing.assert_close(mean, torch.full((5,), 7.0), atol=0.5, rtol=0)
    assert directions.abs().argmax(0).tolist() == [1, 3, 0]
    assert (directions.gather(0, directions.abs().argmax(0, keepdim=True)) > 0).all()
    torch.testing.assert_close(scale, torch.tensor([9.0, 4, 1]), rtol=0.05, atol=0)
