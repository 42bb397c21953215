"""A multi-view head that is trained in seconds."""

from probes.multiview.head import HeadConfig
from probes.multiview.training import TrainingConfig

QUICK = TrainingConfig(
    head=HeadConfig(width=16, depth=2, heads=2, match_width=64, grid=8, cells=2),
    steps=60,
    frames=9,
    views=(3, 3),
    lr=5e-3,
)
