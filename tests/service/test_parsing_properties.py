"""Whatever arrives, parsing gives what was asked or a 4xx; JSON is taken as the schema says."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tiny_model import png

from tzk_core.errors import TzkError
from tzk_core.service.negotiation import accepted
from tzk_core.service.openapi_schemas import REQUESTS, schemas
from tzk_core.service.parsing import parse
from tzk_core.service.wire import RawRequest, header_text

SCHEMAS = schemas()
B64 = base64.b64encode(png()).decode()
NAMES = sorted({name for model in REQUESTS.values() for name in model.model_fields})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 300),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["mnist", "mnist/3", "a,b", "8x8", "json", "npy", "z", "c", "16", B64]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), VALUES, max_size=5)
BYTES = st.dictionaries(
    st.sampled_from([*NAMES, "image1", "image2", "image3"]) | st.text(max_size=12),
    st.binary(max_size=40) | st.text(max_size=20),
    min_size=1,
    max_size=5,
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "image/png", "multipart/x"])
        | st.text(max_size=30),
        "accept": st.text(max_size=40),
    },
)
ENDPOINTS = st.sampled_from(sorted(REQUESTS))


def checked(raw, endpoint):
    parsed = parse(raw, REQUESTS[endpoint])
    assert parsed.items
    for item in parsed.items:
        if isinstance(item, TzkError):
            assert 400 <= item.status < 500, item
            json.dumps(item.problem())
        else:
            assert isinstance(item, REQUESTS[endpoint])
    return parsed


@given(ENDPOINTS, st.binary(max_size=200) | st.text(max_size=200), HEADERS, st.text(max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_bytes(endpoint, body, headers, url_path):
    checked(RawRequest(url_path, headers, {}, body), endpoint)


@given(ENDPOINTS, BYTES, HEADERS, st.text(max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_fields(endpoint, fields, headers, url_path):
    checked(RawRequest(url_path, headers, fields), endpoint)


@given(ENDPOINTS, VALUES | FIELDS | st.lists(FIELDS, max_size=3), HEADERS)
@settings(deadline=None, max_examples=300)
def test_any_json(endpoint, value, headers):
    parsed = checked(RawRequest(headers=headers, body=value), endpoint)
    assert parsed.listed == (isinstance(value, list) and bool(value))


@pytest.mark.parametrize("endpoint", sorted(REQUESTS))
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_json_that_is_taken_fits_the_published_schema(endpoint, data):
    fields = sorted(REQUESTS[endpoint].model_fields)
    asked = data.draw(st.dictionaries(st.sampled_from(fields), VALUES, max_size=3))
    if "image" in fields:
        asked |= {"image": B64}
    if "images" in fields:
        asked |= {"images": [B64, B64]}
    [item] = parse(RawRequest(body=asked), REQUESTS[endpoint]).items
    if not isinstance(item, TzkError):
        asked = {k: v for k, v in asked.items() if not _names_a_path(k, v)}
        schema = {
            "components": {"schemas": SCHEMAS},
            "$ref": f"#/components/schemas/{REQUESTS[endpoint].__name__}",
        }
        Draft202012Validator(schema).validate(asked)


def _names_a_path(field, value):
    """What is no path is refused with the model's own names at hand, after parsing."""
    return field in ("given", "path", "absent", "knowledge")


@given(st.text(max_size=100))
def test_any_accept_header(text):
    assert all(media_type for media_type in accepted(text))


@given(st.text(max_size=2000))
def test_any_header_text(text):
    told = header_text(text)
    assert told.isascii()
    assert len(told) <= 1000
    assert "\n" not in told
    assert "\r" not in told


def test_half_of_a_surrogate_pair_is_no_request():
    """TorchServe has read the JSON already, and hands on the text."""
    raw = RawRequest(body=chr(0xD800), headers={"content-type": "application/json"})
    [found] = parse(raw, REQUESTS["tzk_sample"]).items
    assert isinstance(found, TzkError)
    assert 400 <= found.status < 500
