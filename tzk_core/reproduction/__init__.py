"""The paper's experiments, run again: trained by recipes, measured, compared by a stated rule."""

from .data import PaperData
from .page import page
from .registry import EXPERIMENTS
from .reproduce import reproduce
from .settings import SCALES, Settings

__all__ = ["EXPERIMENTS", "SCALES", "PaperData", "Settings", "page", "reproduce"]
