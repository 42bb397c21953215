"""Training under torchrun: recipes, the loop, checkpoints; imports mum and shards, never probes."""
