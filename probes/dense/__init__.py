"""Depth, normals and classes of every pixel, by small heads on frozen features."""
