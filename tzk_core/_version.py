"""The version, in one place: setup.py reads this file, ``tzk --version`` and archives say it."""

__version__ = "0.1.0"
