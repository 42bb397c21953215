"""Relative pose of two views from frozen features: matches, solvers, a learned head."""
