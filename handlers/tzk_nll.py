"""How likely is this image?"""

from __future__ import annotations

from tzk_handlers.base import BaseHandler

__all__ = ["NllHandler"]


class NllHandler(BaseHandler):
    # TorchServe finds the handler as the one class that this file itself defines.
    endpoint = "tzk_nll"
