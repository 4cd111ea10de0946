"""New images, of a kind or of all."""

from __future__ import annotations

from tzk_handlers.base import BaseHandler

__all__ = ["SampleHandler"]


class SampleHandler(BaseHandler):
    # TorchServe finds the handler as the one class that this file itself defines.
    endpoint = "tzk_sample"
