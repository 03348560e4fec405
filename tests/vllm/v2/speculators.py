"""vLLM's own speculators with real graph managers, above kernels that are left out."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from graphguard.vllm.drafter_v2 import SPECULATORS
from tests.vllm.v2 import stand_ins

_KERNELS = (
    "prepare_eagle_inputs",
    "prepare_prefill_inputs",
)


_DECODES = ("prepare_eagle_decode", "prepare_decode_inputs")


def module() -> Any:
    """Import and return the module of this version's speculator for MTP and EAGLE."""
    for name, speculator in SPECULATORS.items():
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(name)
            if "propose" in vars(getattr(found, speculator)):
                return found
    raise AssertionError("this vLLM has no speculator that is known")


def padded_decodes(draft_tokens: torch.Tensor, *given: Any, **_: Any) -> None:
    """Stand for the kernel that prepares decodes: pad them as it does."""
    num_reqs = len(draft_tokens)
    buffers = next(it for it in given if "query_start_loc" in getattr(it, "__dict__", {}))
    starts = torch.arange(len(buffers.query_start_loc), dtype=torch.int32)
    buffers.query_start_loc.copy_(starts.clamp(max=num_reqs))
    buffers.seq_lens[num_reqs:] = 0


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Let speculators run without Triton."""
    found = module()
    package = found.__name__.rpartition(".")[0]
    names = ("cudagraph_utils", "cudagraph")
    managers = [found]
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            managers.append(importlib.import_module(f"{package}.{name}"))
    stand_in: dict[str, Any] = {name: lambda *_, **__: None for name in _KERNELS}
    stand_in |= dict.fromkeys(_DECODES, padded_decodes)
    stand_in["build_slot_mappings_by_layer"] = lambda *_, **__: {}
    stand_in["prepare_inputs_to_capture"] = stand_ins.prepared_inputs
    with contextlib.ExitStack() as patched:
        for owner in managers:
            for name, value in stand_in.items():
                if hasattr(owner, name):
                    patched.enter_context(mock.patch.object(owner, name, value))
        yield


def speculator(vllm_config: Any, num_drafts: int) -> Any:
    """Return vLLM's own speculator: its managers, captures and proposals are real."""
    found = module()
    base: Any = getattr(found, SPECULATORS[found.__name__])

    class Speculator(base):  # type: ignore[misc, unused-ignore]
        """A speculator from the proposal to the launch of the drafter."""

        # Properties in some versions.
        max_model_len, dp_size, dp_rank = 1024, 1, 0

        def __init__(self) -> None:
            self.vllm_config = vllm_config
            self.device = torch.device("cpu")
            self.method = "mtp"
            self.num_speculative_steps = num_drafts
            self.max_num_reqs = stand_ins.MAX_REQS
            self.supports_mm_inputs = self.supports_decode_metadata_update = False
            self.pcp_manager = None
            self.input_buffers = self.target_input_buffers = stand_ins.buffers()
            self.hidden_states = torch.zeros(stand_ins.MAX_TOKENS, stand_ins.WIDTH)
            self.draft_tokens = torch.zeros(stand_ins.MAX_REQS, num_drafts, dtype=torch.int64)
            self.model = stand_ins.Model(vllm_config)
            self.launched: list[str] = []
            self.init_cudagraph_manager(vllm_config.compilation_config.cudagraph_mode)

        def __getattr__(self, name: str) -> Any:
            self.__dict__[name] = stand_in = mock.MagicMock(name=name)
            return stand_in

        def run(  # noqa: PLR0917 - as vLLM calls it
            self,
            num_reqs: int,
            num_tokens: int,
            attn_metadata: Any,
            slot_mappings: Any,
            num_tokens_across_dp: Any,
            cudagraph_runtime_mode: Any,
            **_: Any,
        ) -> None:
            run_model = self._run_model if hasattr(base, "_run_model") else self.run_model
            run_model(
                num_tokens,
                attn_metadata,
                slot_mappings,
                num_tokens_across_dp,
                cudagraph_runtime_mode,
            )

        prefill = _prefill = generate_draft = _generate_draft = run

        def _copy_request_inputs(self, *_: Any, **__: Any) -> None: ...

        _prepare_eplb_forward = _build_draft_attn_metadata = _copy_request_inputs
        _build_uniform_attn_metadata = _copy_request_inputs

        def load_draft_model(self, *_: Any) -> None: ...

    return Speculator()


def input_batch(num_reqs: int, query_len: int, padded: int, *, decodes: bool) -> Any:
    """Return what the target's step leaves for the speculator."""
    return SimpleNamespace(
        num_reqs=num_reqs,
        num_tokens=num_reqs * query_len,
        num_tokens_after_padding=padded,
        num_scheduled_tokens=np.full(num_reqs, query_len, dtype=np.int32),
        seq_lens_cpu_upper_bound=torch.full((num_reqs,), 9),
        seq_lens=None,
        idx_mapping=torch.arange(num_reqs),
        decode_graph_eligible=decodes,
    )


def propose(drafter: Any, batch: Any, **more: Any) -> None:
    """Let a speculator propose drafts for a batch."""
    hidden = torch.zeros(batch.num_tokens_after_padding, stand_ins.WIDTH)
    drafter.propose(batch, {}, {}, hidden, None, *[mock.MagicMock() for _ in range(6)], **more)
