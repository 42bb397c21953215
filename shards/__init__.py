"""Photographs on disk to packed batches; imports no sibling package."""
