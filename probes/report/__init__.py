"""The report: one HTML page that needs nothing beside itself, made from results, exhibits and runs' files."""

from probes.report.feature_maps import pca_exhibits
from probes.report.page import page

__all__ = ["page", "pca_exhibits"]
