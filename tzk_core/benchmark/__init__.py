"""Which backend serves a model fastest on this machine, measured as a worker would run it."""

from .bench import bench

__all__ = ["bench"]
