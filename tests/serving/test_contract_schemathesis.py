"""schemathesis reads the published document and asks the real server what it can think of.

A few examples an operation here; more by
``pytest tests/serving/test_contract_schemathesis.py -m slow``.
"""

from __future__ import annotations

import base64

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tiny_model import png

from tzk_core.service.openapi import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PICTURES = st.builds(png, side=st.integers(1, 24), seed=st.integers(0, 9))
HEALTH = {"suppress_health_check": list(HealthCheck), "deadline": None, "derandomize": True}

schemathesis.openapi.format("tzk-image", PICTURES.map(lambda data: base64.b64encode(data).decode()))
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, PICTURES | st.binary(max_size=50))


def prepared():
    """The document with what tells the generator that base64 is of an image."""
    spec = document()
    _mark(spec["components"]["schemas"])
    return spec


def _mark(node):
    if isinstance(node, dict):
        if node.get("contentEncoding") == "base64":
            node["format"] = "tzk-image"
        if node.get("format") == "binary":
            del node["format"]
        for value in node.values():
            _mark(value)
    elif isinstance(node, list):
        for value in node:
            _mark(value)


SCHEMA = schemathesis.openapi.from_dict(prepared())


@pytest.fixture(scope="session")
def contract_url(fronted):
    """Where the contract is served: the one place to change when something stands before it."""
    return fronted.url


def _ask(case, url):
    response = case.call(base_url=url, timeout=60)
    case.validate_response(response, checks=CHECKS)


@SCHEMA.parametrize()
@settings(max_examples=3, **HEALTH)
def test_contract(case, contract_url):
    _ask(case, contract_url)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=200, **HEALTH)
def test_contract_at_length(case, contract_url):
    _ask(case, contract_url)
