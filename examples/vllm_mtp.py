"""Serve a tiny model with MTP in vLLM, guarded, and see what the guard has seen.

    GRAPHGUARD_MODE=observe python examples/vllm_mtp.py

Needs vLLM. It makes a model of random weights with one layer of next-token prediction, so that
nothing is downloaded. On a machine without a GPU (vLLM's CPU build) no graph is captured: the
launches of both ranks are compared all the same. There two workers on one socket need
VLLM_CPU_OMP_THREADS_BIND='0|1' and VLLM_CPU_KVCACHE_SPACE=1.
"""

import json
import tempfile
from pathlib import Path

CONFIG = {
    "architectures": ["MiMoForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 256,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "num_nextn_predict_layers": 1,
    "attention_bias": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_sliding_window": False,
}


def main() -> None:
    """Generate for 15 requests, as in the reports of hanging engines."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    with tempfile.TemporaryDirectory() as model:
        Path(model, "config.json").write_text(json.dumps(CONFIG))
        llm = LLM(
            model=model,
            skip_tokenizer_init=True,
            load_format="dummy",
            tensor_parallel_size=2,
            max_model_len=2048,
            max_num_seqs=16,
            speculative_config={"method": "mtp", "num_speculative_tokens": 1},
            worker_extension_cls="graphguard.vllm.worker.GuardedWorker",
        )
        prompts = [TokensPrompt(prompt_token_ids=[3 + i] * (4 + i)) for i in range(15)]
        greedy = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True, detokenize=False)
        outputs = llm.generate(prompts, greedy)
        print(f"{sum(len(output.outputs[0].token_ids) for output in outputs)} tokens")
        for report in llm.collective_rpc("graphguard_report"):
            for guarded in report["models"]:
                found = guarded["divergences"] or "no divergence"
                print(
                    f"rank {report['rank']}, {guarded['role']}: {len(guarded['graphs'])} graphs, "
                    f"compared with {guarded['compared_with']}: {found}"
                )


if __name__ == "__main__":
    main()
