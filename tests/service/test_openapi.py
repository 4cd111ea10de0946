"""The published contract: valid, current, and true of what the service takes and answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tzk_core.cli.main import cli
from tzk_core.errors import WorkFailed
from tzk_core.service import openapi_answers
from tzk_core.service.openapi import document, dumps
from tzk_core.service.openapi_answers import ANSWERED
from tzk_core.service.openapi_examples import ASKED, PICTURES, answers_of, literal, module_of
from tzk_core.service.openapi_responses import PROBLEMS, UNKNOWN
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


def shape(value):
    """What is told, without what it is: names and kinds of values."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items() if name != "reasons"}
    if isinstance(value, list):
        return [shape(one) for one in value]
    return "number" if isinstance(value, (int, float)) or value is None else type(value).__name__


@pytest.fixture(scope="module")
def answered(service):
    """By a model that anyone can make, with the kinds that the examples ask for."""
    return answers_of(service)


def test_what_is_published_is_what_the_command_makes(answered):
    """Of another model: the same answers up to their numbers, pictures and known names."""
    for endpoint in ASKED:
        assert answered[endpoint].keys() == ASKED[endpoint].keys() - set(PICTURES)
        assert answered[endpoint].keys() == ANSWERED[endpoint].keys()
        schema = validator(content("responses", endpoint)["schema"])
        for name, told in answered[endpoint].items():
            schema.validate(told)
            made, published = shape(told), shape(ANSWERED[endpoint][name])
            if (endpoint, name) == ("tzk_nll", "list"):
                made[1].pop("known"), published[1].pop("known")
            for one in (made, published):  # how a picture was prepared depends on the model's size
                for item in one if isinstance(one, list) else [one]:
                    item.pop("notes", None)
            assert made == published


def test_the_published_problem_is_one_of_an_unknown_name():
    assert (UNKNOWN["status"], UNKNOWN["pointer"]) == (404, "/given")
    assert set(UNKNOWN["known"]) >= {"mnist", "fashion"}
    [published] = DOCUMENT["components"]["responses"]["NotFound"]["content"][PROBLEM][
        "examples"
    ].values()
    assert published["value"] == UNKNOWN


def test_the_module_is_as_the_command_writes_it(answered):
    written = Path(openapi_answers.__file__).read_text(encoding="utf-8")
    assert written.endswith(literal(ANSWERED) + "\n"), "see openapi_examples.py: it was edited"
    text, names = module_of(answered, 7, "0123"), {}
    exec(text, names)
    assert names["ANSWERED"] == answered
    assert max(map(len, text.splitlines())) <= 100


def test_text_that_is_long_or_strange_is_written_as_it_is():
    value = {"a": ["×" * 300, 'say "no"\n', "", -1.5e-7, True, None, {}, []]}
    assert eval(literal(value)) == value


def test_a_model_without_the_kinds_cannot_answer_for_the_document():
    from tiny_model import tiny_model

    from tzk_core.service.service import Service

    model = tiny_model()
    model.remove_knowledge("fashion")
    with pytest.raises(WorkFailed, match=r"tzk_posterior, some: .*fashion"):
        answers_of(Service(model))


def test_an_example_without_a_shown_answer_is_answered_too(service):
    for endpoint, requests in ASKED.items():
        for name in requests.keys() & set(PICTURES):
            [answer] = service.answer(endpoint, [RawRequest(body=requests[name])])
            assert (answer.status, answer.content_type) == (200, "image/png")


def test_problems_fit_their_schema(service):
    schema = DOCUMENT["components"]["responses"]["Invalid"]["content"][PROBLEM]["schema"]
    for asked in ({"n": 0, "seed": "x"}, {"given": "kanji"}, {"given": "K"}, 3):
        [answer] = service.answer("tzk_sample", [RawRequest(body=asked)])
        validator(schema).validate(json.loads(answer.body))
