"""How requests pass the front, and what it makes of addresses, errors, ids and versions."""

from __future__ import annotations

import httpx
import pytest
from filelock import FileLock
from serving.stub_torchserve import FrontOnStub, ask_for_nothing, error, reset, slow, until

from tzk_core.errors import TzkError
from tzk_core.front.urls import Target, parse_target

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def fronted(tmp_path_factory):
    with FrontOnStub(tmp_path_factory.mktemp("front"), body_limit=2**20) as fronted:
        yield fronted


@pytest.fixture(scope="module")
def http(fronted):
    with httpx.Client(base_url=fronted.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def usual(fronted):
    yield
    fronted.stub.answer = ask_for_nothing


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    told = answer.json()
    assert told["status"] == status
    assert {"type", "title", "detail"} <= told.keys()
    return told


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/predictions/tzk_nll", "/predictions/tzk_nll/1.0"),
        ("/predictions/tzk_nll/", "/predictions/tzk_nll/1.0"),
        ("/predictions/tzk_nll/1.0", "/predictions/tzk_nll/1.0"),
        ("/predictions/tzk_nll/1.0/mnist/3", "/predictions/tzk_nll/1.0/mnist/3"),
        ("/predictions/tzk_nll/1.0/a,-b", "/predictions/tzk_nll/1.0/a,-b"),
        ("/predictions/tzk_nll/1.0/K%C3%A4nji", "/predictions/tzk_nll/1.0/K%C3%A4nji"),
    ],
)
def test_paths_stay_as_they_are(http, sent, arrives):
    assert http.put(sent, content=b"x").json()["path"] == arrives


def test_what_is_passed_on(http):
    sent = {
        "Content-Type": "image/png",
        "Accept": "image/png",
        "X-Request-Id": "abc-1",
        "Authorization": "Bearer secret",
        "X-Api-Key": "secret",
        "url_path": "fashion",
        "Cookie": "a=b",
    }
    answer = http.put("/predictions/tzk_nll/1.0/mnist", content=b"12345", headers=sent)
    told = answer.json()
    got = {name.lower(): value for name, value in told["headers"].items()}
    assert told["bytes"] == 5
    assert got.pop("x-request-start").startswith("t=")
    assert got.pop("host")
    assert got == {
        "content-type": "image/png",
        "accept": "image/png",
        "content-length": "5",
        "x-request-id": "abc-1",
    }
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers.get_list("x-request-id") == ["abc-1"]


@pytest.mark.parametrize("sent", ["", "a b", "x" * 200, "a\tb", "{}"])
def test_an_id_that_is_not_sane_is_replaced(http, sent):
    answer = http.get("/predictions/tzk_nll", headers={"X-Request-Id": sent})
    assert answer.headers["x-request-id"] not in ("", sent)
    assert answer.json()["headers"]["X-Request-Id"] == answer.headers["x-request-id"]


def test_a_get_has_no_body(http):
    got = http.get("/predictions/tzk_nll").json()
    assert "Content-Length" not in got["headers"]
    empty = http.put("/predictions/tzk_nll", content=b"").json()
    assert empty["headers"]["Content-Length"] == "0"


def test_a_chunked_body_arrives_whole(http):
    pieces = (b"x" * 1000 for _ in range(300))
    assert http.post("/predictions/tzk_nll", content=pieces).json()["bytes"] == 300_000


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/predictions/tzk_other", 404, "there is tzk_nll"),
        ("/predictions/tzk_nll/mnist", 404, "no version"),
        ("/predictions/tzk_nll/9.9", 404, "there is 1.0"),
        ("/predictions/tzk_nll/1.0/../../models", 404, "no steps"),
        ("/predictions/%2e%2e/models", 404, "no steps"),
        ("/predictions/tzk_nll/1.0/%2e%2e%2fmodels", 404, "no steps"),
        ("/predictions/tzk_nll/1.0/..%5cmodels", 404, "no steps"),
        ("/predictions/tzk_nll%00", 400, "control character"),
        ("/predictions/tzk_nll/1.0/a%0d%0aX:%20y", 400, "control character"),
        ("/predictions/tzk_nll/1.0/%zz", 400, "hexadecimal"),
        ("/predictions/tzk_nll/1.0/%ff", 400, "UTF-8"),
        ("/predictions/tzk_nll/1.0/" + 3000 * "a", 400, "longer"),
        ("/predictions/tzk_nll?n=3", 422, "query string"),
        ("/models", 404, "nothing at this address"),
        ("/", 404, "nothing at this address"),
        ("//predictions/tzk_nll", 404, "nothing at this address"),
        ("/predictions", 404, "nothing at this address"),
    ],
)
def test_addresses_that_are_none(fronted, target, status, said):
    """As they stand, which a client's library would not send."""
    before = list(fronted.stub.asked)
    with fronted.connect() as connection:
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert PROBLEM.encode() in answer
    assert said.encode() in answer
    assert fronted.stub.asked == before


def test_methods(http):
    refused = http.delete("/predictions/tzk_nll")
    problem(refused, 405)
    assert refused.headers["allow"] == "GET, POST, PUT"


def test_targets():
    assert parse_target(b"/predictions/a/1.0/b/c%20d") == Target("a", "/b/c%20d")
    for wrong in (b"predictions/a", b"/predictions/", b"/predictions//1.0", b"*", b""):
        with pytest.raises(TzkError):
            parse_target(wrong)


@pytest.mark.parametrize(
    ("theirs", "status", "retry"),
    [
        (error(507, "InternalServerException", "Worker died."), 503, True),
        (error(500, "InternalServerException", "Worker died."), 503, True),
        (error(500, "ErrorDataDecoderException", "empty name"), 400, False),
        (error(500, "ArrayIndexOutOfBoundsException", "Index 1 out of bounds"), 400, False),
        (error(503, "ServiceUnavailableException", 'Model "x" has no worker'), 503, True),
        (error(500, "InternalServerException", "prediction failed"), 500, False),
        (error(500, "InternalServerException", "Response timeout"), 504, False),
        (error(413, "RequestEntityTooLarge", "too large"), 413, False),
        (error(403, "IllegalArgumentException", "a header value"), 400, False),
        (error(404, "ResourceNotFoundException", "x"), 404, False),
        ((500, "text/html", b"<h1>no JSON</h1>"), 500, False),
    ],
)
def test_torchserves_errors_are_problems(fronted, http, theirs, status, retry):
    fronted.stub.answer = lambda *_: theirs
    answer = http.put("/predictions/tzk_nll", content=b"x")
    problem(answer, status)
    assert ("retry-after" in answer.headers) == retry


def test_a_time_limit_is_no_death(fronted, http):
    """TorchServe kills the worker of a batch that takes too long, and says that it died."""
    died = error(500, "InternalServerException", "Worker died.")
    fronted.stub.batch_seconds = 0.3
    httpx.post(f"{fronted.admin_url}/refresh", trust_env=False)
    try:
        fronted.stub.answer = lambda *asked: slow(0.5)(*asked) and died
        answer = http.put("/predictions/tzk_nll", content=b"x")
        assert "longer than it may" in problem(answer, 504)["detail"]
        assert "retry-after" not in answer.headers
        fronted.stub.answer = lambda *_: died
        assert "retry-after" in http.put("/predictions/tzk_nll", content=b"x").headers
    finally:
        fronted.stub.batch_seconds = 120
        httpx.post(f"{fronted.admin_url}/refresh", trust_env=False)


def test_a_connection_that_is_reset_is_replaced(fronted, http):
    """With POST, which aiohttp by itself does not send again."""
    asked = len(fronted.stub.asked)
    fronted.stub.answer = lambda request, _: (
        reset(request) if len(fronted.stub.asked) == asked + 1 else ask_for_nothing(request, b"")
    )
    assert http.post("/predictions/tzk_nll", content=b"x").status_code == 200
    assert len(fronted.stub.asked) == asked + 2
    fronted.stub.answer = lambda request, _: reset(request)
    assert "broke off" in problem(http.post("/predictions/tzk_nll", content=b"x"), 502)["detail"]
    assert len(fronted.stub.asked) == asked + 4


def test_a_handlers_problem_passes_unchanged(fronted, http):
    body = b'{"title": "Not an image", "status": 400}'
    fronted.stub.answer = lambda *_: (400, PROBLEM, body)
    assert http.put("/predictions/tzk_nll", content=b"x").content == body


def test_the_current_version_is_asked(fronted, http):
    """A switch in TorchServe is followed, at once where the old version is gone."""
    stub = fronted.stub
    stub.versions = {"1.0", "2.0"}
    stub.version = "2.0"
    try:
        table = httpx.post(f"{fronted.admin_url}/refresh", trust_env=False).json()
        assert table["models"]["tzk_nll"]["version"] == "2.0"
        answer = http.get("/predictions/tzk_nll/1.0/mnist")
        assert answer.json()["path"] == "/predictions/tzk_nll/2.0/mnist"
        stub.versions, stub.version = {"3.0"}, "3.0"
        answer = http.put("/predictions/tzk_nll", content=b"x")
        assert answer.json()["path"] == "/predictions/tzk_nll/3.0"
        stub.versions = set()
        told = problem(http.put("/predictions/tzk_nll", content=b"x"), 503)
        assert "being replaced" in told["detail"]
    finally:
        stub.versions, stub.version = {"1.0"}, "1.0"
        httpx.post(f"{fronted.admin_url}/refresh", trust_env=False)


def test_readiness_liveness_metrics(fronted, http):
    until(lambda: http.get("/ready").status_code == 200)
    assert http.get("/ready").json() == {"ready": True, "models": {"tzk_nll": "ready"}}
    assert http.head("/ready").status_code == 200
    assert http.get("/ping").json() == {"status": "Healthy"}
    scraped = httpx.get(f"{fronted.admin_url}/metrics", trust_env=False).text
    assert 'tzk_front_answers_total{endpoint="tzk_nll",status="200"}' in scraped
    assert "\ntheirs_total 1.0\n" in scraped
    problem(httpx.get(f"{fronted.admin_url}/predictions/tzk_nll", trust_env=False), 404)


def test_metrics_that_somebody_else_reads_for_long(fronted, http):
    """The lock is waited for a while; then who asks is to come again."""
    with FileLock(fronted.figures / "reading.lock"):
        told = httpx.get(f"{fronted.admin_url}/metrics", trust_env=False, timeout=60)
    assert "another" in problem(told, 503)["detail"]
    assert "retry-after" in told.headers
    assert http.get("/ping").status_code == 200


def test_the_access_log(fronted, http):
    http.put(
        "/predictions/tzk_nll/1.0/a%0Ab",
        content=b"abc",
        headers={"X-Request-Id": "mine", "Authorization": "Bearer hush"},
    )
    http.put("/predictions/tzk_nll", content=b"abc", headers={"X-Request-Id": "other"})
    until(lambda: {"mine", "other"} <= {x["id"] for x in fronted.log()})  # after the answer
    mine, other = (next(x for x in fronted.log() if x["id"] == i) for i in ("mine", "other"))
    assert (mine["status"], mine["path"]) == (400, "/predictions/tzk_nll/1.0/a%0Ab")
    assert (other["status"], other["bytes_in"], other["version"]) == (200, 3, "1.0")
    assert other["ms"] > 0
    assert "hush" not in fronted.access_log.read_text() + fronted.output.read_text()
