"""What a trained model is worth, measured part by part and written as JSON, Markdown and HTML."""

from ..settings import PARTS, Settings
from .evaluate import evaluate, results_folder

__all__ = ["PARTS", "Settings", "evaluate", "results_folder"]
