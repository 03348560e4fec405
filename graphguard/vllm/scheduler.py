"""A scheduler for vLLM whose steps are uniform in query length.

``--scheduler-cls graphguard.vllm.scheduler.UniformScheduler``

A step of it holds only decodes of one length (1+k tokens with drafts, or 1 token without), or only
prefills. It is vLLM's own scheduler with one more say: so that hybrid models can align their
chunks, vLLM asks a method how many tokens of a request a step may take. Here the answer is none
for what is not of the step's kind.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from graphguard.environment import decode_steps
from graphguard.log import logger
from graphguard.vllm.admission import admission_limits, nothing_admitted
from graphguard.vllm.contract import Part, missing
from graphguard.vllm.step_kinds import Decodes, Prefills

if TYPE_CHECKING:
    Request = Any
    """A ``vllm.v1.request.Request``."""
    Output = Any
    """A ``vllm.v1.core.sched.output.SchedulerOutput``."""

    class _Parent:
        """What is always used of vLLM's Scheduler and AsyncScheduler."""

        vllm_config: Any
        running: list[Request]
        num_spec_tokens: int
        max_model_len: int
        max_num_running_reqs: int
        max_num_scheduled_tokens: int
        need_mamba_block_aligned_split: bool
        prev_step_scheduled_req_ids: set[str]

        def __init__(self, *arguments: Any, **named: Any) -> None: ...  # noqa: ANN401
        def schedule(self, *arguments: Any, **named: Any) -> Output: ...  # noqa: ANN401
        def get_request_counts(self) -> tuple[int, int]: ...
        def _mamba_block_aligned_split(
            self, request: Request, num_new_tokens: int, *found: int, **named: int
        ) -> int: ...

    UniformScheduler: type[_Parent]
else:
    _Parent = object

ROUNDS_WITHOUT_ROOM = 4
"""After prefills for which vLLM found no room, so many times more decode steps come first."""


class UniformSteps(_Parent):
    """Makes the steps of a vLLM scheduler uniform; it is mixed into one.

    With k drafts and P steps (``GRAPHGUARD_DECODE_STEPS``), this is how long something waits that
    vLLM would have found room for: a decode for at most 2(k+1) other steps, a prefill for at most
    P, or 4P after one for which vLLM found no room.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **named)
        self._patience = decode_steps()
        self._plan: Decodes | Prefills | None = None
        self._waited: dict[str, int] = {}
        self._decode_steps = 0
        self._prefills_after = 0
        self._counts_without_room: tuple[int, int] | None = None
        self._let_parent = False
        self.steps_left_to_vllm = 0
        lacking = missing(Part.SCHEDULER)
        self._armed = not lacking
        if lacking:
            self._give_up(" ".join(lacking))
            return
        self._aligns = self.need_mamba_block_aligned_split
        self.need_mamba_block_aligned_split = True
        self._forbidden = self._length_no_prefill_may_have()
        logger().info(
            "graphguard: each step of the scheduler is of decodes of one length or of prefills%s; "
            "prefills wait for at most %d steps of decodes",
            " of any length" if self._forbidden == 0 else f", none of {self._forbidden} tokens",
            self._patience,
        )

    def schedule(self, *arguments: Any, **named: Any) -> Output:  # noqa: ANN401
        """Schedule a step of one kind."""
        if not self._armed:
            return super().schedule(*arguments, **named)
        try:
            self._forget_lost_drafts()
            ready = self._ready_decodes()
            throttled = any(arguments) or any(named.values())
            plan = self._choose(ready, throttled)
        except AttributeError as error:
            self._give_up(str(error))
            return super().schedule(*arguments, **named)
        output = self._schedule_as_planned(plan, arguments, named)
        self._note(plan, ready, output)
        return output

    def _mamba_block_aligned_split(
        self, request: Request, num_new_tokens: int, *found: int, **named: int
    ) -> int:
        if not self._armed or self._aligns:
            num_new_tokens = super()._mamba_block_aligned_split(
                request, num_new_tokens, *found, **named
            )
        if self._plan is None:
            return num_new_tokens
        computed = request.num_computed_tokens + sum(found) + sum(named.values())
        return self._plan.tokens(request, num_new_tokens, request.num_tokens - computed)

    def _length_no_prefill_may_have(self) -> int:
        # A chunk that must end at a block, or not right before its prompt does, cannot be cut.
        cut = not self._aligns and getattr(self, "num_prefill_lookahead", 0) <= self.num_spec_tokens
        return 1 + self.num_spec_tokens if self.num_spec_tokens > 0 and cut else 0

    def _schedule_as_planned(
        self,
        plan: Decodes | Prefills | None,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Output:
        self._plan = plan
        try:
            with nothing_admitted(self) if isinstance(plan, Decodes) else nullcontext():
                return super().schedule(*arguments, **named)
        finally:
            self._plan = None

    def _forget_lost_drafts(self) -> None:
        """Let requests that left out a step go on without drafts where the worker lost them.

        With async scheduling the drafts of a step are in the worker. The V1 runner keeps them for
        the next step only, the V2 runner keeps them with the request.
        """
        if self._runner_remembers:
            return
        for request in self.running:
            drafts = request.spec_token_ids
            if drafts and drafts[0] == -1 and self._left_out_last(request):
                request.spec_token_ids = []

    @property
    def _runner_remembers(self) -> bool:
        return bool(getattr(self, "use_v2_model_runner", False))

    def _left_out_last(self, request: Request) -> bool:
        return request.request_id not in self.prev_step_scheduled_req_ids

    def _ready_decodes(self) -> dict[int, list[Request]]:
        """Return the running requests that are past their prompts, by the tokens that are due."""
        ready: dict[int, list[Request]] = {}
        for request in self.running:
            length = self._due(request)
            if 0 < length <= 1 + self.num_spec_tokens and not request.is_prefill_chunk:
                ready.setdefault(length, []).append(request)
        return ready

    def _due(self, request: Request) -> int:
        """Return how many tokens vLLM would schedule of a running request."""
        unseen: int = request.num_output_placeholders
        computed: int = request.num_computed_tokens
        if unseen > 0:
            if computed + 2 - unseen >= request.num_prompt_tokens + request.max_tokens:
                return 0
            if not self._runner_remembers and self._left_out_last(request):
                # Its last token is under way to the scheduler, and no longer in the worker.
                return 0
        if getattr(self, "current_step", 0) + 1 < getattr(request, "next_decode_eligible_step", 0):
            return 0
        sampled = getattr(self, "num_sampled_tokens_per_step", 1)
        due: int = request.num_tokens_with_spec + unseen - computed
        return min(due, self.max_model_len - sampled - computed)

    def _prefilling(self, request: Request) -> bool:
        return bool(request.is_prefill_chunk) or self._due(request) > 1 + self.num_spec_tokens

    def _choose(
        self, ready: dict[int, list[Request]], throttled: bool
    ) -> Decodes | Prefills | None:
        if self._let_parent:
            self._let_parent = False
            return None
        if not ready and not self._prefills_ready() and not self._awaiting_outputs():
            return None
        if not ready or (
            self._decode_steps >= self._wait_for_prefills()
            and not self._held_back(throttled)
            and self._prefills_ready()
        ):
            decodes = {r.request_id for r in self.running if not self._prefilling(r)}
            # The same versions keep waiting requests that hold blocks in a queue of their own.
            return Prefills(decodes, self._forbidden, hasattr(self, "kv_holding_waiting"))
        waited = self._waited
        length, group = max(
            ready.items(),
            key=lambda item: (max(waited.get(r.request_id, 0) for r in item[1]), len(item[1])),
        )
        room = self._room_for(length)
        if len(group) > room:
            group = sorted(group, key=lambda r: -waited.get(r.request_id, 0))[:room]
        return Decodes(length, {request.request_id for request in group})

    def _room_for(self, length: int) -> int:
        config = self.vllm_config
        slots = getattr(config.speculative_config, "max_num_new_slots_for_drafting", 0)
        inputs: int = config.scheduler_config.max_num_batched_tokens // (length + slots)
        return max(1, min(self.max_num_scheduled_tokens // length, inputs))

    def _wait_for_prefills(self) -> int:
        if self._counts_without_room == self.get_request_counts():
            return ROUNDS_WITHOUT_ROOM * self._patience
        return self._prefills_after

    def _held_back(self, throttled: bool) -> bool:
        """Whether vLLM itself would not prefill in this step."""
        if getattr(self, "prefill_capacity_bound", False):
            return False
        interval: int = getattr(self, "local_prefill_interval", 1)
        if throttled or interval <= 1:
            return throttled
        executed, last = (
            getattr(self, "num_executed_steps", 0),
            getattr(self, "last_prefill_step", 0),
        )
        return bool(executed + 1 - last < interval)

    def _awaiting_outputs(self) -> bool:
        return any(request.num_output_placeholders > 0 for request in self.running)

    def _prefills_ready(self) -> bool:
        running, waiting = self.get_request_counts()
        if waiting > 0 and running < min(admission_limits(self).values()):
            return True
        return any(self._prefilling(request) for request in self.running)

    def _note(
        self, plan: Decodes | Prefills | None, ready: dict[int, list[Request]], output: Output
    ) -> None:
        """Remember who was left out, and see whether the step is what was planned."""
        lengths: dict[str, int] = output.num_scheduled_tokens
        waited = self._waited
        self._waited = {
            request.request_id: waited.get(request.request_id, 0) + 1
            for group in ready.values()
            for request in group
            if request.request_id not in lengths
        }
        if isinstance(plan, Prefills):
            tokens: int = output.total_num_scheduled_tokens
            self._decode_steps = 0
            full = 2 * tokens >= self.max_num_scheduled_tokens
            self._prefills_after = 1 if full else self._patience
            self._counts_without_room = None if tokens else self.get_request_counts()
        else:
            self._decode_steps += 1
        if plan is None:
            self.steps_left_to_vllm += 1
        elif not plan.allows(lengths):
            self._give_up(f"a step of {plan} has {sorted(lengths.values())}")
        elif not lengths and isinstance(plan, Decodes):
            # Nothing that was expected to be ready was. vLLM knows better.
            self._let_parent = True

    def _give_up(self, why: str) -> None:
        if self._armed:
            self.need_mamba_block_aligned_split = self._aligns
        self._armed = False
        logger().warning(
            "graphguard: the scheduler does not make steps uniform, it is vLLM's own: %s", why
        )


def __getattr__(name: str) -> object:
    """Make ``UniformScheduler`` when it is asked for: its parents are vLLM's."""
    if name != "UniformScheduler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    def new(cls: type[Any], *arguments: Any, **named: Any) -> object:  # noqa: ANN401
        config = named["vllm_config"] if "vllm_config" in named else arguments[0]
        if config.scheduler_config.async_scheduling:
            return object.__new__(cls)
        return synchronous(*arguments, **named)

    about = {"__module__": __name__, "__doc__": UniformSteps.__doc__}
    synchronous = type("UniformSyncScheduler", (UniformSteps, Scheduler), dict(about))
    uniform = type("UniformScheduler", (UniformSteps, AsyncScheduler), {**about, "__new__": new})
    globals()[name] = uniform
    return uniform
