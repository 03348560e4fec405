"""What is left out of evidence because it is secret: tokens, keys, passwords, prompts, token ids.

Evidence is attached to public reports. What only may be secret counts as secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "<redacted>"

_SECRET_WORDS = (
    r"TOKEN|SECRET|PASSW|PASSPHRASE|PASSCODE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|AUTH|COOKIE|"  # noqa: S105 - what they are called
    r"SESSION|SIGNATURE|BEARER|JWT|DSN|CONNECTION_?STRING|WEBHOOK|ENCRYPT|CERT|LICENSE|SALT"
)
_SECRET_NAME = re.compile(
    rf"{_SECRET_WORDS}|(?:^|[_.-])(?:KEY|KEYS|PWD|PASS|PAT|SAS)(?:$|[_.-])", re.IGNORECASE
)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
_COUNT_NAME = re.compile(r"TOKENS|TOKENIZER|MAX_TOKEN|TOKEN_(?:COUNT|LIMIT)", re.IGNORECASE)
_COUNT = re.compile(r"\d{1,7}|true|false|on|off|none", re.IGNORECASE)

_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?P<name>[\w.-]*(?:{_SECRET_WORDS}|(?<![A-Za-z0-9])(?:KEY|PWD|PASS|PAT)(?![A-Za-z0-9]))"
    r"[\w.-]*)(?P<between>[\"']?(?:\s*[=:]\s*|\s+))"
    r"(?P<value>(?:Bearer|Basic|Token)\s+[^\s,;&\"']+|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|"
    r"[^\s,;&\"']+)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s\"'<>]*@")
_BEARER = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)
_KNOWN_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{8,}|gh[opsur]_[A-Za-z0-9]{8,}|"
    r"github_pat_\w{8,}|glpat-[\w-]{8,}|xox[abeprs]-[\w-]{8,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|"
    r"AIza[\w-]{20,}|nvapi-[\w-]{8,}|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?|ya29\.[\w-]+|"
    r"r8_[A-Za-z0-9]{8,})"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL)
_LEAST_LITERAL = 6
"""Characters of a secret that is looked for everywhere. A shorter one is a part of other words."""


class Redactor:
    """Takes secrets out of text, also those that the environment of a process names as such.

    Args:
        environments: Of the processes that the evidence is about.
    """

    def __init__(self, environments: Iterable[Mapping[str, str]] = ()) -> None:
        literals = {
            value
            for environment in environments
            for name, value in environment.items()
            if is_secret_name(name) and not _is_count(name, value)
            # SSH_AUTH_SOCK and its like name files: that is no secret, and they stand everywhere.
            if len(value) >= _LEAST_LITERAL and not (value[0] == "/" and os.path.exists(value))
        }
        # The longest first: one may be a part of another.
        ordered = sorted(literals, key=lambda literal: (-len(literal), literal))
        self._literals = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """Return text without what looks like a secret."""
        if self._literals is not None:
            text = self._literals.sub(REDACTED, text)
        text = _PRIVATE_KEY.sub(REDACTED, text)
        text = _SCHEME.sub(rf"\g<scheme>{REDACTED}@", text)
        text = _BEARER.sub(rf"\g<kind> {REDACTED}", text)
        text = _ASSIGNED.sub(_assignment, text)
        return _KNOWN_FORMS.sub(REDACTED, text)

    def variable(self, name: str, value: str) -> str:
        """Return the value of a variable of the environment, or that it is left out."""
        if is_secret_name(name) and not _is_count(name, value):
            return REDACTED
        return self.text(value)

    def arguments(self, arguments: Iterable[str]) -> list[str]:
        """Return a command line without the values of arguments that are secret."""
        shown: list[str] = []
        secret = False
        for argument in arguments:
            if secret and not argument.startswith("-"):
                shown.append(REDACTED)
                secret = False
                continue
            name, equals, _ = argument.partition("=")
            named = argument.startswith("-") and is_secret_name(name.lstrip("-"))
            if named and equals and not _is_count(name, argument[len(name) + 1 :]):
                shown.append(f"{name}={REDACTED}")
                secret = False
                continue
            secret = named and not equals and not _COUNT_NAME.search(name)
            shown.append(self.text(argument))
        return shown

    def tree(self, value: Any) -> Any:  # noqa: ANN401 - it is JSON
        """Return what JSON holds, with every text of it redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {str(name): self.tree(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.tree(each) for each in value]
        return value


def is_secret_name(name: str) -> bool:
    """Return whether a variable or an argument of this name may hold a secret."""
    return name not in _NO_SECRETS and _SECRET_NAME.search(name) is not None


def _is_count(name: str, value: str) -> bool:
    return _COUNT_NAME.search(name) is not None and _COUNT.fullmatch(value) is not None


def _assignment(found: re.Match[str]) -> str:
    name, between, value = found["name"], found["between"], found["value"]
    if between.isspace() and not name.startswith("-"):
        # Prose: "the token budget is exhausted".
        return found[0]
    if _COUNT_NAME.search(name) and _COUNT.fullmatch(value.strip("\"'")):
        return found[0]
    if value.lower() in ("none", "null", "true", "false", "''", '""', REDACTED):
        return found[0]
    return f"{name}{between}{REDACTED}"
