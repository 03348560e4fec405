"""The tiny model with experts and an MTP head, for data-parallel ranks that must keep in step.

Weights and tokenizer are made as those of ``model.py``: see there for what they are to be like.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.vllm.engine import model
from tests.vllm.engine.model import Weights

EXPERTS = 4
_LAYERS = 2
_HIDDEN, _INTERMEDIATE, _EXPERT = 256, 128, 64

CONFIG = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "hidden_size": _HIDDEN,
    "intermediate_size": _INTERMEDIATE,
    "moe_intermediate_size": _EXPERT,
    "num_hidden_layers": _LAYERS,
    # The first layer has no experts.
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": model.VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "num_nextn_predict_layers": 1,
    "attention_bias": True,
    "use_qk_norm": False,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write(directory: Path) -> Path:
    """Write configuration, weights and tokenizer into a directory that vLLM can load."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    save_file(_weights(), directory / "model.safetensors", metadata={"format": "pt"})
    model.write_tokenizer(directory)
    return directory


def _weights() -> Weights:
    generator = torch.Generator().manual_seed(model.SEED)
    weights = model.outer_weights(generator)
    weights |= dict(model.block("model.layers.0", generator))
    weights |= dict(_block_of_experts("model.layers.1", generator))
    drafter = f"model.layers.{_LAYERS}"
    weights |= dict(_block_of_experts(drafter, generator, scale=0.2))
    for name in ("enorm", "hnorm", "shared_head.norm"):
        weights[f"{drafter}.{name}.weight"] = torch.ones(_HIDDEN)
    identity = torch.eye(_HIDDEN)
    weights[f"{drafter}.eh_proj.weight"] = torch.cat([identity, 0.2 * identity], dim=1)
    return {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}


def _block_of_experts(
    prefix: str, generator: torch.Generator, scale: float = 1.0
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in model.block(prefix, generator, scale):
        if ".mlp." not in name:
            yield name, weight
    yield f"{prefix}.mlp.gate.weight", torch.randn(EXPERTS, _HIDDEN, generator=generator)
    yield f"{prefix}.mlp.gate.e_score_correction_bias", torch.zeros(EXPERTS)
    for expert in ("shared_experts", *(f"experts.{number}" for number in range(EXPERTS))):
        yield from model.mlp(f"{prefix}.mlp.{expert}", generator, _EXPERT, scale)
