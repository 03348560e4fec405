"""Digests that are the same in every process, on every machine and Python version."""

from __future__ import annotations

from collections.abc import Iterable

# A change of the encoding needs a new number here: two versions must never agree by accident.
_PERSON = b"graphguard/1"
_DIGEST_BYTES = 16

Encodable = int | str | None | tuple["Encodable", ...]


def encode(value: Encodable) -> bytes:
    """Encode a value so that different values never give the same bytes.

    The form is bencode's, with a sign for nothing: every string carries its length and every
    tuple its end.
    """
    if value is None:
        return b"n"
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        text = value.encode()
        return b"%d:%s" % (len(text), text)
    return b"l" + b"".join(map(encode, value)) + b"e"


def digest(parts: Iterable[bytes]) -> str:
    """Return the digest of encoded parts as 32 hexadecimal digits (BLAKE2b, 128 bits)."""
    # Loading OpenSSL takes a tenth of the time that importing graphguard takes.
    from hashlib import blake2b

    return blake2b(b"".join(parts), digest_size=_DIGEST_BYTES, person=_PERSON).hexdigest()
