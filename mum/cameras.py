"""Pinhole geometry on batched tensors: projection, warps by depth, relative pose and angles.

Conventions, here and everywhere: OpenCV axes (x right, y down, z forward); world_to_camera (..., 3, 4) is
[R | t]; pixel centres at +0.5, so that the image spans [0, W] x [0, H]; intrinsics (..., 3, 3) in pixels of
the current image; depth is z along the camera's axis, 0 = unknown. Leading axes broadcast. Knows no images
and no models.
"""

import torch
from torch import Tensor

VISIBLE_WITHIN = 0.05
"""Relative difference in depth up to which a warped point counts as seen."""


def transform(points: Tensor, pose: Tensor) -> Tensor:
    """Apply (..., 3, 4) [R | t] to points (..., N, 3)."""
    return points @ pose[..., :3].transpose(-2, -1) + pose[..., 3].unsqueeze(-2)


def invert(pose: Tensor) -> Tensor:
    """The inverse of a rigid (..., 3, 4): camera-to-world from world-to-camera and back."""
    rotation = pose[..., :3].transpose(-2, -1)
    return torch.cat((rotation, -rotation @ pose[..., 3:]), dim=-1)


def compose(second: Tensor, first: Tensor) -> Tensor:
    """The rigid (..., 3, 4) that applies `first`, then `second`."""
    rotation = second[..., :3] @ first[..., :3]
    return torch.cat((rotation, second[..., :3] @ first[..., 3:] + second[..., 3:]), dim=-1)


def relative_pose(world_to_a: Tensor, world_to_b: Tensor) -> Tensor:
    """(..., 3, 4) that takes coordinates of camera a to coordinates of camera b."""
    return compose(world_to_b, invert(world_to_a))


def camera_centre(world_to_camera: Tensor) -> Tensor:
    """(..., 3) position of the camera in the world."""
    return invert(world_to_camera)[..., 3]


def project(points: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """World points to pixels.

    Args:
        points: (..., N, 3).
        intrinsics: (..., 3, 3).
        world_to_camera: (..., 3, 4).

    Returns:
        Pixels (..., N, 2) and depths (..., N). Points at or behind the camera have depth <= 0 and pixels that
        mean nothing; none is infinite.
    """
    in_camera = transform(points, world_to_camera)
    depth = in_camera[..., 2]
    image = in_camera @ intrinsics.transpose(-2, -1)
    z = torch.where(depth > 0, depth, torch.ones_like(depth))
    return image[..., :2] / z.unsqueeze(-1), depth


def unproject(pixels: Tensor, depth: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> Tensor:
    """Pixels with depth to world points: the inverse of `project`.

    Args:
        pixels: (..., N, 2).
        depth: (..., N).
        intrinsics: (..., 3, 3).
        world_to_camera: (..., 3, 4).

    Returns:
        (..., N, 3).
    """
    homogeneous = torch.cat((pixels, torch.ones_like(pixels[..., :1])), dim=-1)
    rays = torch.linalg.solve(intrinsics, homogeneous.transpose(-2, -1)).transpose(-2, -1)
    return transform(rays * depth.unsqueeze(-1), invert(world_to_camera))


def read_depth(depth_map: Tensor, pixels: Tensor) -> Tensor:
    """The depth of the pixel that each point falls into.

    Args:
        depth_map: (H, W).
        pixels: (N, 2) as (x, y).

    Returns:
        (N,); 0 outside the image.
    """
    height, width = depth_map.shape
    limit = torch.tensor([width, height], device=pixels.device)
    inside = ((pixels >= 0) & (pixels < limit)).all(dim=-1)
    column, row = torch.where(inside.unsqueeze(-1), pixels, torch.zeros_like(pixels)).long().unbind(-1)
    return torch.where(inside, depth_map[row, column], torch.zeros_like(depth_map[0, 0]))


def warp_by_depth(
    pixels: Tensor,
    depth_a: Tensor,
    intrinsics_a: Tensor,
    world_to_a: Tensor,
    depth_b: Tensor,
    intrinsics_b: Tensor,
    world_to_b: Tensor,
    *,
    tolerance: float = VISIBLE_WITHIN,
) -> tuple[Tensor, Tensor]:
    """Where points of view a lie in view b, and whether b sees them.

    Args:
        pixels: (N, 2) in view a.
        depth_a, depth_b: (H, W) of either view; sizes may differ.
        intrinsics_a, intrinsics_b: (3, 3).
        world_to_a, world_to_b: (3, 4).
        tolerance: a point counts as seen if b's depth there is within this share of the point's own.

    Returns:
        Pixels in b (N, 2) and valid (N,) bool: depth known on both sides, in front of b, inside b, not
        occluded.
    """
    depth = read_depth(depth_a, pixels)
    points = unproject(pixels, depth, intrinsics_a, world_to_a)
    warped, expected = project(points, intrinsics_b, world_to_b)
    found = read_depth(depth_b, warped)
    valid = (depth > 0) & (expected > 0) & (found > 0) & ((found - expected).abs() <= tolerance * expected)
    return warped, valid


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees, 0 to 180, between vectors (..., 3); accurate near both ends."""
    cross = torch.linalg.cross(a, b, dim=-1).norm(dim=-1)
    return torch.rad2deg(torch.atan2(cross, (a * b).sum(dim=-1)))
