"""The published contract: valid, current, and true of what the service takes and answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tzk_core.cli.main import cli
from tzk_core.service.openapi import document, dumps
from tzk_core.service.openapi_examples import ANSWERED, ASKED
from tzk_core.service.openapi_responses import PROBLEMS
from tzk_core.service.service import ENDPOINTS
from tzk_core.service.wire import PROBLEM, RawRequest

KEPT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
DOCUMENT = document()
EVERY = [(endpoint, name) for endpoint in ASKED for name in ASKED[endpoint]]


def validator(schema):
    """For a schema that refers to the document's components."""
    return Draft202012Validator({"components": DOCUMENT["components"], **schema})


def content(kind, endpoint):
    return DOCUMENT["components"][kind][endpoint]["content"]["application/json"]


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_kept_copy_is_current():
    said = "docs/openapi.json is old: tzk openapi --out docs/openapi.json"
    assert KEPT.read_text(encoding="utf-8") == dumps(), said


def test_the_command_prints_and_writes_it(tmp_path):
    printed = CliRunner().invoke(cli, ["openapi"])
    assert json.loads(printed.stdout) == DOCUMENT
    written = CliRunner().invoke(cli, ["openapi", "--out", str(tmp_path / "x.json")])
    assert written.exit_code == 0, written.output
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == dumps()


def test_every_endpoint_and_status_is_there():
    for endpoint, one in ENDPOINTS.items():
        for path in (f"/predictions/{endpoint}/1.0", f"/predictions/{endpoint}/1.0/{{given}}"):
            item = DOCUMENT["paths"][path]
            assert {"post", "put"} <= item.keys()
            assert ("get" in item) == (not one.request.needs_image)
            assert item["post"]["responses"].keys() == {"200", *map(str, PROBLEMS)}


@pytest.mark.parametrize(("endpoint", "name"), EVERY)
def test_examples_fit_their_schemas(endpoint, name):
    validator(content("requestBodies", endpoint)["schema"]).validate(ASKED[endpoint][name])


@pytest.mark.parametrize(
    ("endpoint", "name"), [(endpoint, name) for endpoint in ANSWERED for name in ANSWERED[endpoint]]
)
def test_answers_fit_their_schemas(endpoint, name):
    validator(content("responses", endpoint)["schema"]).validate(ANSWERED[endpoint][name])


@pytest.mark.parametrize(("endpoint", "name"), EVERY)
def test_examples_are_answered_as_published(service, endpoint, name):
    """By a model without the kind ``mnist/7``: it is left out."""
    asked = json.loads(json.dumps(ASKED[endpoint][name]).replace("mnist/7", "mnist/3"))
    raw = RawRequest(body=asked, headers={"accept": "application/json"})
    [answer] = service.answer(endpoint, [raw])
    assert answer.status == 200, answer.body
    validator(content("responses", endpoint)["schema"]).validate(json.loads(answer.body))


def test_problems_fit_their_schema(service):
    schema = DOCUMENT["components"]["responses"]["Invalid"]["content"][PROBLEM]["schema"]
    for asked in ({"n": 0, "seed": "x"}, {"given": "kanji"}, {"given": "K"}, 3):
        [answer] = service.answer("tzk_sample", [RawRequest(body=asked)])
        validator(schema).validate(json.loads(answer.body))
