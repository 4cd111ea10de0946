"""The images between two or four others."""

from __future__ import annotations

from tzk_handlers.base import BaseHandler

__all__ = ["InterpolateHandler"]


class InterpolateHandler(BaseHandler):
    # TorchServe finds the handler as the one class that this file itself defines.
    endpoint = "tzk_interpolate"
