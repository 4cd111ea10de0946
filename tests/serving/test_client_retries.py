"""When the client asks again, with a clock that is not real."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import pytest

from tzk_core.client import (
    AsyncTzkClient,
    Busy,
    Invalid,
    Refused,
    Retry,
    TooLarge,
    TzkClient,
    Unauthorized,
    Unreachable,
)
from tzk_core.client.images import image_bytes
from tzk_core.errors import UsageError

NLL = {
    **dict.fromkeys(["nll_nats", "bits_per_dim", "bits_per_dim_native"], 1.0),
    **dict.fromkeys(["typicality", "percentile", "given"]),
    **{"estimator": "prior", "draws": 1, "seed": 7, "dims": 4, "dims_native": 4, "notes": []},
}


def client(outcomes, url="http://x", **options):
    """A client of scripted outcomes; what it waited and sent are in the lists beside it."""
    waits, sent, left = [], [], iter(outcomes)
    clock = options.pop("clock", lambda: sum(waits))

    def answer(request):
        sent.append(request)
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    retry = Retry(clock=clock, now=lambda: 0.0, **options.pop("retry", {}))
    transport = httpx.MockTransport(answer)
    made = TzkClient(url, retry=retry, transport=transport, sleep=waits.append, **options)
    return made, waits, sent


@pytest.mark.parametrize("after", ["7", "Thu, 01 Jan 1970 00:00:07 GMT"])
def test_retry_after_is_honoured(after):
    made, waits, _ = client(
        [httpx.Response(503, headers={"Retry-After": after}), httpx.Response(200, content=b"png")]
    )
    assert made.sample_png(n=1) == b"png"
    assert waits == [7.0]


def test_lost_connections_are_asked_again_until_the_tries_end():
    made, waits, sent = client([httpx.ConnectError("no")] * 3, retry={"tries": 3})
    with pytest.raises(Unreachable, match=r"http://x after 3 tries \(no\).*tzk status") as error:
        made.sample_png(n=1)
    assert isinstance(error.value.__cause__, httpx.ConnectError)
    assert len(sent) == 3
    assert 0 <= waits[0] <= 0.25
    assert 0 <= waits[1] <= 0.5


@pytest.mark.parametrize(
    "final", [httpx.ReadTimeout("slow"), httpx.PoolTimeout("many"), httpx.Response(503)]
)
def test_what_another_try_would_make_worse_is_final(final):
    made, waits, sent = client([final])
    with pytest.raises(Busy if isinstance(final, httpx.Response) else Unreachable):
        made.sample_png(n=1)
    assert (waits, len(sent)) == ([], 1)


def test_a_try_has_no_more_time_than_is_left():
    busy = httpx.Response(503, headers={"Retry-After": "7"})
    made, _, sent = client([busy, httpx.Response(200)], timeout=6, retry={"total": 10})
    made.sample_png(n=1)
    assert [request.extensions["timeout"]["read"] for request in sent] == [6, 3]


def test_the_async_client_waits_alike():
    waits, left = [], [httpx.Response(503, headers={"Retry-After": "7"}), httpx.Response(200)]

    async def wait(seconds):
        waits.append(seconds)

    async def ask():
        transport = httpx.MockTransport(lambda request: left.pop(0))
        retry = Retry(clock=lambda: sum(waits))
        async with AsyncTzkClient("http://x", retry=retry, transport=transport, sleep=wait) as made:
            return await made.sample_png(n=1)

    assert asyncio.run(ask()) == b""
    assert waits == [7.0]


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:y:z"])
def test_an_address_that_is_none_is_told_at_once(url):
    with pytest.raises(UsageError, match="the address of"):
        TzkClient(url)


def test_a_key_that_no_header_can_carry_is_not_shown():
    with pytest.raises(UsageError) as error:
        TzkClient("http://x", key="secret\nkey")
    assert "secret" not in str(error.value)


def test_a_password_in_the_address_is_not_shown():
    made, _, _ = client([httpx.ConnectError("no")], url="http://u:secret@x", retry={"tries": 1})
    with pytest.raises(Unreachable, match="http://x ") as error:
        made.sample_png(n=1)
    assert "secret" not in error.value.detail


def test_what_another_server_answers_is_told():
    made, _, _ = client([httpx.Response(200, text="<html>hello</html>")] * 2)
    with pytest.raises(Unreachable, match="no answer of tzk_sample"):
        made.sample(n=1)
    with pytest.raises(Unreachable, match="no answer of tzk_sample"):
        made.samples(n=1)


def test_fields_that_a_newer_server_adds_are_left_out():
    told = NLL | {"newer": 1}
    made, _, _ = client([httpx.Response(200, json=told), httpx.Response(200, json=[told])])
    assert made.nll(b"image").seed == 7
    assert [one.seed for one in made.nll_many([b"image"])] == [7]


def test_a_part_that_is_refused_gives_its_error_to_each_of_its_images():
    made, _, sent = client(
        [httpx.Response(413, json={"detail": "large"}), httpx.Response(200, json=[NLL])]
    )
    first, missing, second, third = made.nll_many([b"a", "none.png", b"b", b"c"], batch=3)
    assert first is second
    assert isinstance(first, TooLarge)
    assert "none.png cannot be read" in missing.detail
    assert third.seed == 7
    assert len(sent) == 2


def test_no_key_and_no_server_end_a_series():
    for outcome, error in (
        (httpx.Response(401), Unauthorized),
        (httpx.ReadTimeout("slow"), Unreachable),
    ):
        made, _, sent = client([outcome])
        with pytest.raises(error):
            list(made.nll_many([b"a", b"b"], batch=1))
        assert len(sent) == 1


def test_a_wait_beyond_the_total_is_not_begun():
    made, waits, _ = client([httpx.Response(503, headers={"Retry-After": "61"})])
    with pytest.raises(Refused) as refused:
        made.sample_png(n=1)
    assert refused.value.status == 503
    assert waits == []


def test_other_errors_are_final_and_the_key_is_sent():
    made, waits, sent = client([httpx.Response(422, json={"detail": "bad n"})], key="secret")
    with pytest.raises(Invalid, match="bad n"):
        made.sample_png(n=0)
    assert waits == []
    assert sent[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 8, 3), (8,)])
def test_arrays_that_could_be_misread_are_refused(shape):
    with pytest.raises(UsageError, match="H, W"):
        image_bytes(np.zeros(shape, np.uint8))


def test_arrays_arrive_as_they_are():
    import io

    from PIL import Image

    array = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image_bytes(array)))), array)
