"""Requests, answers, seeds and pictures: what a handler does, without a server."""

from __future__ import annotations
