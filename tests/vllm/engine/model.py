"""The tiny model with an MTP head: weights and tokenizer, made by code.

The weights are a checkpoint and not ``load_format="dummy"``: dummy weights are all so small that
every logit is a near tie, and they are the same on both ranks, so that an all-reduce left out would
hardly show. These are drawn from one seed, each rank loads its own part, attention and MLP weigh
as much as the embedding, and a token's most likely follower is one that the drafter can guess, so
that drafts are accepted in some steps and rejected in others.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_letters

import torch

CONFIG = Path(__file__).with_name("tiny-mtp.json")
VOCABULARY = 512
SEED = 20_261_121
_HIDDEN = 256
_INTERMEDIATE = 128
_HEAD = 64
_LAYERS = 2
# Powers that were tried out: how much of the residual stream is attention, and MLP.
_ATTENTION = 5.0
_MLP = 3.0

Weights = dict[str, torch.Tensor]


def write(directory: Path) -> Path:
    """Write configuration, weights and tokenizer into a directory that vLLM can load."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIG, directory / "config.json")
    save_file(_weights(), directory / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(directory)
    return directory


def _weights() -> Weights:
    generator = torch.Generator().manual_seed(SEED)
    weights = outer_weights(generator)
    for layer in range(_LAYERS):
        weights |= dict(block(f"model.layers.{layer}", generator))
    mtp = "model.mtp_layers.0"
    weights |= dict(block(mtp, generator, scale=0.2))
    for name in ("token_layernorm", "hidden_layernorm", "final_layernorm"):
        weights[f"{mtp}.{name}.weight"] = torch.ones(_HIDDEN)
    identity = torch.eye(_HIDDEN)
    weights[f"{mtp}.input_proj.weight"] = torch.cat([0.2 * identity, identity], dim=1)
    return {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}


def outer_weights(generator: torch.Generator) -> Weights:
    """Draw what is before the first layer of a model and after its last one."""
    embedding = torch.randn(VOCABULARY, _HIDDEN, generator=generator)
    follower = torch.randperm(VOCABULARY, generator=generator)
    head = torch.empty_like(embedding)
    head[follower] = embedding / _HIDDEN**0.5
    return {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": torch.ones(_HIDDEN),
        "lm_head.weight": head,
    }


def block(
    prefix: str, generator: torch.Generator, scale: float = 1.0
) -> Iterator[tuple[str, torch.Tensor]]:
    """Draw a layer. ``scale`` says how much it weighs beside the residual stream."""
    queries, keys = 4 * _HEAD, 2 * _HEAD
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield f"{prefix}.self_attn.{name}.weight", _normal(rows, _HIDDEN, 1.0, generator)
        yield f"{prefix}.self_attn.{name}.bias", torch.randn(rows, generator=generator) * 0.1
    attention = _normal(_HIDDEN, queries, scale * _ATTENTION, generator)
    yield f"{prefix}.self_attn.o_proj.weight", attention
    yield from mlp(f"{prefix}.mlp", generator, _INTERMEDIATE, scale)
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{name}.weight", torch.ones(_HIDDEN)


def mlp(
    prefix: str, generator: torch.Generator, intermediate: int, scale: float = 1.0
) -> Iterator[tuple[str, torch.Tensor]]:
    """Draw an MLP of an intermediate size."""
    yield f"{prefix}.gate_proj.weight", _normal(intermediate, _HIDDEN, 1.0, generator)
    yield f"{prefix}.up_proj.weight", _normal(intermediate, _HIDDEN, 1.0, generator)
    yield f"{prefix}.down_proj.weight", _normal(_HIDDEN, intermediate, scale * _MLP, generator)


def _normal(rows: int, columns: int, power: float, generator: torch.Generator) -> torch.Tensor:
    scale: float = power / columns**0.5
    return torch.randn(rows, columns, generator=generator) * scale


def write_tokenizer(directory: Path) -> None:
    """Write a tokenizer of letters and pairs of them: what a client decodes is never empty text.

    It is of the kind that transformers takes for this type of model, whatever the files ask for.
    """
    from tokenizers import Tokenizer, models

    pairs = list(product(ascii_letters, repeat=2))[: VOCABULARY - len(ascii_letters)]
    words = [*ascii_letters, *("".join(pair) for pair in pairs)]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, pairs))
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "Qwen2Tokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
