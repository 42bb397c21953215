"""Scores of frozen features; imports mum and shards, never pretrain."""
