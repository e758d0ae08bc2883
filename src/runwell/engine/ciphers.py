"""Encryption of what must not be readable in a copy of the database (AES-256-GCM)."""

import hashlib
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runwell.core.errors import RunwellError

_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 4


class UndecryptableError(RunwellError):
    """None of the keys that the server has been given encrypted this."""


class Cipher:
    """Encrypts with the first of its keys, and decrypts with whichever was used.

    A key is any text: who replaces one gives both for a while, the new one first.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        """With one key at least."""
        raw = [hashlib.sha256(b"runwell variables " + key.encode()).digest() for key in keys]
        self._keys = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: AESGCM(key) for key in raw}

    def encrypt(self, text: str, *, place: str) -> bytes:
        """A text as bytes that decrypt only at the same `place`: moved elsewhere they are void."""
        key_id, key = next(iter(self._keys.items()))
        nonce = os.urandom(_NONCE_BYTES)
        return key_id + nonce + key.encrypt(nonce, text.encode(), place.encode())

    def decrypt(self, data: bytes, *, place: str) -> str:
        """The text again; raises UndecryptableError."""
        key = self._keys.get(data[:_KEY_ID_BYTES])
        rest = data[_KEY_ID_BYTES:]
        if key is None:
            raise UndecryptableError("it was encrypted with a key that this server doesn't have")
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, ValueError):
            raise UndecryptableError("it was changed in the database") from None
