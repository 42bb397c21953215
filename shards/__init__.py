"""Photographs on disk to packed batches; imports no sibling package.

`open_dataset` reads what `python -m shards build` wrote. Names are imported when they are first used, so that
`import shards` costs nothing and reading a dataset does not import torch.
"""

import importlib

_HOME = {
    "Frame": "shards.format",
    "Scene": "shards.format",
    "ShardsError": "shards.format",
    "NotADataset": "shards.format",
    "BadPhotograph": "shards.format",
    "CorruptFrame": "shards.format",
    "Dataset": "shards.reader",
    "Chunk": "shards.chunk",
    "open_dataset": "shards.reader",
    "DataConfig": "shards.data_config",
    "LaneStep": "shards.plan",
    "Plan": "shards.plan",
    "PlanError": "shards.data_config",
    "Batch": "shards.microbatch",
    "Loader": "shards.loader",
    "Mixture": "shards.mixture",
    "open_mixture": "shards.mixture",
    "fixed_views": "shards.fixed",
}
"""Public name -> the module it lives in."""

__all__ = [
    "BadPhotograph",
    "Batch",
    "Chunk",
    "CorruptFrame",
    "DataConfig",
    "Dataset",
    "Frame",
    "LaneStep",
    "Loader",
    "Mixture",
    "NotADataset",
    "Plan",
    "PlanError",
    "Scene",
    "ShardsError",
    "fixed_views",
    "open_dataset",
    "open_mixture",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'shards' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
