"""Starts TorchServe and sees that it really serves: the only place in tzk_core that names it."""

from __future__ import annotations

from tzk_core.launcher.server import Server
from tzk_core.launcher.serving import Serving
from tzk_core.launcher.settings import Settings

__all__ = ["Server", "Serving", "Settings"]
