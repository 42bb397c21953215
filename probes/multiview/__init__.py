"""Cameras and points of many views at once, by one small head on frozen features."""
