"""Secrets never appear in what is kept."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graphguard.watch.evidence.redaction import REDACTED, Redactor, is_secret_name

SECRETS = st.text(
    string.ascii_letters + string.digits + "+/=_-.~!$%*", min_size=8, max_size=60
).map(lambda text: f"Zq{text}9x")
SECRET_NAMES = st.sampled_from(
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "OPENAI_API_KEY",
        "VLLM_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "REDIS_PASSWORD",
        "DB_PASS",
        "MY_PWD",
        "WANDB_API_KEY",
        "GITHUB_PAT",
        "SENTRY_DSN",
        "AZURE_CREDENTIALS",
        "ssh_private_key",
        "NCCL_AUTH",
        "api-key",
        "apikey",
    ]
)
WORDS = st.text(string.ascii_letters + " ,.", max_size=30)


@given(SECRET_NAMES, SECRETS)
def test_the_value_of_a_secret_variable_is_left_out(name: str, secret: str) -> None:
    assert is_secret_name(name)
    assert Redactor().variable(name, secret) == REDACTED


@given(SECRET_NAMES, SECRETS, WORDS, WORDS, st.sampled_from(["=", ": ", " = ", '": "', "': '"]))
def test_what_is_assigned_to_a_secret_name_is_left_out_of_a_text(
    name: str, secret: str, before: str, after: str, between: str
) -> None:
    text = f"{before} {name}{between}{secret} {after}"
    assert secret not in Redactor().text(text)


@given(SECRETS, st.sampled_from(["redis", "https", "postgresql+psycopg", "amqp"]), WORDS)
@example("p@ss/w:ord", "redis", "")
@example("a@b", "https", "")
def test_credentials_in_an_address_are_left_out(secret: str, scheme: str, before: str) -> None:
    text = Redactor().text(f"{before} {scheme}://user:{secret}@host:6379/0 after")
    assert secret not in text
    assert "host:6379/0 after" in text


@given(SECRETS)
def test_the_bearer_of_a_header_is_left_out(secret: str) -> None:
    assert secret not in Redactor().text(f"Authorization: Bearer {secret}")
    assert secret not in Redactor().text(f'{{"authorization": "Bearer {secret}"}}')


@given(SECRETS, WORDS, WORDS)
def test_a_secret_of_the_environment_is_left_out_wherever_it_stands(
    secret: str, before: str, after: str
) -> None:
    redactor = Redactor([{"MY_API_KEY": secret}])
    assert secret not in redactor.text(f"{before}{secret}{after}")
    kept = json.dumps(redactor.tree({"a": [{"b": f"x{secret}y"}]}))
    assert secret not in kept


def test_a_file_that_a_secret_looking_variable_names_is_not_looked_for(tmp_path: Path) -> None:
    redactor = Redactor([{"SSH_AUTH_SOCK": str(tmp_path), "PWD": "what it is"}])
    assert redactor.text(f"evidence: {tmp_path}/stall") == f"evidence: {tmp_path}/stall"
    assert redactor.text("what it is") == "what it is"


@given(SECRETS, st.sampled_from(["--api-key", "--token", "-p-password", "--hf-token", "--auth"]))
def test_secret_arguments_are_left_out(secret: str, name: str) -> None:
    redactor = Redactor()
    assert secret not in " ".join(redactor.arguments(["serve", name, secret, "--port", "8000"]))
    assert secret not in " ".join(redactor.arguments(["serve", f"{name}={secret}", "--port"]))


@pytest.mark.parametrize(
    "form",
    [
        "hf_abcdefghijklmnopqrstuvwxyz",
        "sk-proj-abcdefghijklmnop",
        "ghp_abcdefghijklmnop1234",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "nvapi-abcdefghijkl",
        "xoxb-1234567890-abcdef",
        "glpat-abcdefghijklmnop",
    ],
)
def test_tokens_of_known_forms_are_left_out_wherever_they_stand(form: str) -> None:
    assert form not in Redactor().text(f"fetched with {form}, and then")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NCCL_DEBUG", "INFO"),
        ("VLLM_MAX_NUM_BATCHED_TOKENS", "8192"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3"),
        ("NCCL_RAS_ADDR", "localhost:28028"),
        ("LD_LIBRARY_PATH", "/usr/lib:/opt/lib"),
        ("VLLM_KEYBOARD", "x"),
        ("PWD", "/home/me"),
    ],
)
def test_what_is_no_secret_is_kept(name: str, value: str) -> None:
    assert Redactor().variable(name, value) == value


@pytest.mark.parametrize(
    "text",
    [
        "the token budget of this step is exhausted",
        "max_num_batched_tokens=8192, seed=0",
        "total_num_scheduled_tokens=30",
        "graphguard: STALL host-stuck: rank 1 in spin() model.py:12",
        "[rank0]: RuntimeError: CUDA error: an illegal memory access was encountered",
    ],
)
def test_ordinary_lines_are_kept(text: str) -> None:
    assert Redactor().text(text) == text


@given(st.text(max_size=300))
def test_any_text_can_be_redacted(text: str) -> None:
    redactor = Redactor([{"MY_TOKEN": text}])
    once = redactor.text(text)
    assert isinstance(once, str)
    redactor.arguments(text.split())
    redactor.variable(text, text)
