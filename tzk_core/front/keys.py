"""Who may call: keys, compared in constant time, kept only as their SHA-256."""

from __future__ import annotations

import hmac
import math
import os
import secrets
import string
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from tzk_core.errors import UsageError

__all__ = ["KEYS_VARIABLE", "LEAST_BITS", "Keys", "digests_of", "new_key", "read_keys", "sent_key"]

KEYS_VARIABLE = "TZK_API_KEYS"
LEAST_BITS = 128
LEAST_DIFFERENT = 8
"""Of 32 random hexadecimal digits fewer than 8 are different once in 10⁷ keys."""

ALPHABETS = (
    string.digits,
    string.digits + "abcdef",
    string.digits + "ABCDEF",
    string.digits + string.ascii_lowercase,
    string.ascii_letters + string.digits,
    string.ascii_letters + string.digits + "-_",
)
PRINTABLE = frozenset(chr(code) for code in range(0x21, 0x7F)) - {","}
HOW = "make one with tzk serve --new-key"


def new_key() -> str:
    """A key of 256 bits."""
    return secrets.token_urlsafe(32)


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The keys of a file (one a line, ``#`` comments) and of TZK_API_KEYS (with commas between).

    Raises:
        UsageError: the file cannot be read or holds no key, or a key is too weak. The sentence says
            which line, and never the key.
    """
    found = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the keys file {file} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            key = line.partition("#")[0].strip()
            if key:
                _check(key, f"{file}, line {number}")
                found.append(key)
        if not found:
            raise UsageError(f"the keys file {file} holds no key: {HOW}")
    for number, key in enumerate(environment.get(KEYS_VARIABLE, "").split(","), start=1):
        if key.strip():
            _check(key.strip(), f"{KEYS_VARIABLE}, key {number}")
            found.append(key.strip())
    return found


def digests_of(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sha256(key.encode()).hexdigest() for key in keys)


def sent_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key in ``Authorization: Bearer KEY`` or ``X-Api-Key: KEY``."""
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key", b"").strip() or None


class Keys:
    """The digests of all keys; none at all means that everybody may call.

    Args:
        file: read again when it has changed, so that keys are exchanged without a restart.
        digests: SHA-256 (hex) of further keys.
    """

    def __init__(self, file: Path | None = None, digests: Iterable[str] = ()) -> None:
        self._fixed = [bytes.fromhex(digest) for digest in digests]
        self._file = file
        self._read: list[bytes] = []
        self._stamp: tuple[int, ...] | None = None
        self.refresh()

    def __bool__(self) -> bool:
        return self._file is not None or bool(self._fixed)

    def refresh(self) -> None:
        """Reads the file again if it has changed; one that is wrong changes nothing.

        Raises:
            UsageError: it is wrong; the keys stay what they were.
        """
        if self._file is None:
            return
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._read = [
            bytes.fromhex(digest) for digest in digests_of(read_keys(self._file, environment={}))
        ]

    def name_of(self, key: bytes | None) -> str | None:
        """What the log calls the caller: eight digits of the key's digest; ``None`` for no key.

        Every key is compared, whether or not one matched, each in constant time.
        """
        if key is None:
            return None
        digest = sha256(key).digest()
        matched = False
        for known in (*self._fixed, *self._read):
            matched |= hmac.compare_digest(digest, known)
        return digest.hex()[:8] if matched else None


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _check(key: str, where: str) -> None:
    if not PRINTABLE.issuperset(key):
        raise UsageError(
            f"{where}: a key has only printable ASCII without spaces and commas; {HOW}"
        )
    bits = _bits(key)
    if bits < LEAST_BITS or len(set(key)) < LEAST_DIFFERENT:
        raise UsageError(
            f"{where}: a key needs at least {LEAST_BITS} bits (32 random hexadecimal digits, or 22 "
            f"random letters and digits of both cases), and this has {bits:.0f} at most; {HOW}"
        )


def _bits(key: str) -> float:
    """How many bits a key of this length and these characters has if it was drawn at random."""
    for alphabet in ALPHABETS:
        if set(key) <= set(alphabet):
            return len(key) * math.log2(len(alphabet))
    return len(key) * math.log2(len(PRINTABLE))
