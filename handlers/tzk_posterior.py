"""Which kinds of knowledge apply to this image?"""

from __future__ import annotations

from tzk_handlers.base import BaseHandler

__all__ = ["PosteriorHandler"]


class PosteriorHandler(BaseHandler):
    # TorchServe finds the handler as the one class that this file itself defines.
    endpoint = "tzk_posterior"
