"""Who may call."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from serving.stub_torchserve import FrontOnStub, until

from tzk_core.errors import UsageError
from tzk_core.front.keys import Keys, digests_of, new_key, read_keys
from tzk_core.launcher import Settings

TZK = [sys.executable, "-m", "tzk_core.cli.main"]
FIRST, SECOND, THIRD = new_key(), new_key(), new_key()


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# ours\n{FIRST}  # the shop\n\n")
    return file


@pytest.fixture(scope="module")
def fronted(tmp_path_factory, keys_file):
    folder = tmp_path_factory.mktemp("front")
    with FrontOnStub(folder, keys_file=str(keys_file), digests=digests_of([SECOND])) as fronted:
        until(lambda: fronted.table()["ready"])
        yield fronted


def ask(fronted, headers):
    url = f"{fronted.url}/predictions/tzk_nll"
    return httpx.put(url, content=b"x", headers=headers, trust_env=False, timeout=60)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {FIRST}"},
        {"authorization": f"bearer {SECOND}"},
        {"X-Api-Key": FIRST},
    ],
)
def test_a_key_opens(fronted, headers):
    answer = ask(fronted, headers)
    assert answer.status_code == 200
    passed = {name.lower() for name in answer.json()["headers"]}
    assert not passed & {"authorization", "x-api-key"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {THIRD}"},
        {"Authorization": f"Basic {FIRST}"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": FIRST[:-1]},
        {"X-Api-Key": FIRST + "x"},
    ],
)
def test_no_key_or_a_wrong_one(fronted, headers):
    asked = len(fronted.stub.asked)
    answer = ask(fronted, headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(fronted.stub.asked) == asked


def test_load_balancers_need_none(fronted):
    for path in ("/ready", "/ping"):
        assert httpx.get(fronted.url + path, trust_env=False).status_code == 200
    # What there is, is not told to who may not call.
    assert httpx.get(f"{fronted.url}/predictions/none", trust_env=False).status_code == 401


def test_keys_are_never_logged(fronted):
    ask(fronted, {"X-Api-Key": FIRST})
    ask(fronted, {"X-Api-Key": THIRD})
    said = fronted.access_log.read_text() + fronted.output.read_text()
    assert FIRST not in said
    assert THIRD not in said
    assert {line.get("key") for line in fronted.log()} >= {digests_of([FIRST])[0][:8], None}


def test_keys_are_exchanged_while_it_runs(fronted, keys_file):
    before = keys_file.read_text()
    keys_file.write_text("short\n")
    until(lambda: "keys stay as they were" in fronted.output.read_text())
    assert ask(fronted, {"X-Api-Key": FIRST}).status_code == 200
    keys_file.write_text(THIRD + "\n")
    until(lambda: ask(fronted, {"X-Api-Key": THIRD}).status_code == 200)
    assert ask(fronted, {"X-Api-Key": FIRST}).status_code == 401
    keys_file.write_text(before + "\n")
    until(lambda: ask(fronted, {"X-Api-Key": FIRST}).status_code == 200)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("secret", "at least 128 bits"),
        ("0123456789abcdef0123456789abcde", "at least 128 bits"),
        ("a" * 64, "at least 128 bits"),
        ("correct horse battery staple, twice over", "printable"),
        ("ключключключключключключключ", "printable"),
    ],
)
def test_weak_keys_are_refused(tmp_path, key, said):
    file = tmp_path / "keys"
    file.write_text(f"# one\n{key}\n")
    with pytest.raises(UsageError, match=said) as refused:
        read_keys(file, environment={})
    assert "line 2" in refused.value.detail
    assert key not in refused.value.detail


def test_keys_from_the_environment(tmp_path):
    assert read_keys(None, {"TZK_API_KEYS": f"{FIRST}, {SECOND},"}) == [FIRST, SECOND]
    with pytest.raises(UsageError, match="TZK_API_KEYS, key 2"):
        read_keys(None, {"TZK_API_KEYS": f"{FIRST},abc"})
    (tmp_path / "empty").write_text("# none\n")
    for file, said in ((tmp_path / "empty", "holds no key"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UsageError, match=said):
            read_keys(file, {})
    assert Keys().name_of(FIRST.encode()) is None
    assert not Keys()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_hosts_need_keys(host, monkeypatch, keys_file):
    monkeypatch.delenv("TZK_API_KEYS", raising=False)
    with pytest.raises(UsageError, match="--keys-file"):
        Settings(host=host).check_callers()
    Settings(host=host, insecure=True).check_callers()
    Settings(host=host, keys_file=keys_file).check_callers()
    monkeypatch.setenv("TZK_API_KEYS", SECOND)
    assert Settings(host=host).check_callers() == digests_of([SECOND])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_loopback_needs_none(host, monkeypatch):
    monkeypatch.delenv("TZK_API_KEYS", raising=False)
    assert Settings(host=host).check_callers() == ()


def test_the_command_line_says_so(store):
    options = ["--model-store", str(store), "--host", "0.0.0.0", "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if k != "TZK_API_KEYS"}
    refused = subprocess.run(
        [*TZK, "serve", *options], capture_output=True, text=True, env=environment, check=False
    )
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    made = subprocess.run(
        [*TZK, "serve", "--new-key"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert read_keys(None, {"TZK_API_KEYS": made}) == [made]
