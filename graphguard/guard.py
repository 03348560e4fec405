"""The front door: a decorator on capture functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphguard import environment
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.fallbacks import Eager
from graphguard.graph_set import CaptureFunction, GraphSet
from graphguard.graphs.tensors import sliced
from graphguard.guarded_capture import GuardedCapture
from graphguard.launching import FillPadding, Unpad
from graphguard.observed_steps import Choose
from graphguard.policy import (
    InputCheck,
    OnDivergence,
    Policy,
    parse_on_divergence,
    parse_setting,
)
from graphguard.session import Session, default_session
from graphguard.signature import GraphKey, GraphMode
from graphguard.verdict import Action

MAX_VOTE_SECONDS = 60.0
"""A longer wait in every step would be the hang that it is to prevent."""


def guard(
    role: str,
    *,
    eager: Eager | None = None,
    mode: Mode | str | None = None,
    on_divergence: OnDivergence = "eager",
    graph_mode: GraphMode | str = GraphMode.FULL,
    variant: str = "",
    query_len: int | None = None,
    max_recaptures: int = 16,
    max_recapture_bytes: int | None = None,
    check_inputs: InputCheck | str = InputCheck.OFF,
    fill_padding: FillPadding | None = None,
    unpad: str | Unpad | None = None,
    choose: Choose | None = None,
    group: Any = None,  # noqa: ANN401 - a process group, a function that returns one, an agreement
    vote_seconds: float | None = None,
    session: Session = default_session,
) -> Callable[[CaptureFunction], GuardedCapture]:
    """Guard the graphs that a capture function makes.

    Args:
        role: ``target``, ``drafter``, or a name of your own.
        eager: Runs a step without a graph. It takes the batch descriptor.
        mode: ``off``, ``observe`` or ``enforce``; without it, what ``GRAPHGUARD_MODE`` says.
        on_divergence: What to do about a batch that does not fit, when enforcing: ``eager``,
            ``recapture`` or ``raise``, or a mapping from reasons to these with a ``default``.
        graph_mode: ``full`` or ``piecewise``.
        variant: What else tells families of graphs apart: LoRA count, micro-batches.
        query_len: Query tokens of a request in a uniform decode step (1 + k with k drafted
            tokens); the audit checks captured sizes against it.
        max_recaptures: How many graphs may be captured after warm-up. Then steps run eagerly.
        max_recapture_bytes: How much device memory these may reserve in all.
        check_inputs: ``off``, ``spec`` (dtype, shape, device) or ``address`` (and not moved).
        fill_padding: Called with the batch and the larger descriptor before a padded replay, to
            put the padded slots of the static inputs into a state that kernels can stand.
        unpad: What to cut off the outputs of a padded replay: ``tokens`` or ``requests`` cuts
            tensors with that many rows, a function takes (outputs, batch, padded). Without it
            outputs come as the graph left them, padded rows included.
        choose: The program's own choice of a graph: takes the batch and the captured
            descriptors, returns one of these or None to run eagerly. It decides in ``off`` and
            ``observe``; when enforcing, the table decides, alike on every rank.
        group: The ranks that share the collectives of these graphs: a process group of
            torch.distributed whose ranks all have this guard, a function that returns one, or a
            :class:`graphguard.Agreement`. Their captures are compared when warm-up ends, and from
            then on they agree on every step (``docs/agreement.md``).
        vote_seconds: With a group, when enforcing: let all ranks wait for each other in every
            step, at most so long, and do what all of them can. For programs in which only one
            rank can see at the last moment that a graph must not be launched.
        session: Where signatures are kept for the manifest.

    Raises:
        ConfigurationError: If a setting does not exist, or steps may have to run eagerly and
            there is no ``eager``.
    """
    policy = Policy(
        mode=environment.mode() if mode is None else environment.parse_mode(mode, "guard()"),
        fallbacks=parse_on_divergence(on_divergence),
        max_recaptures=max_recaptures,
        max_recapture_bytes=max_recapture_bytes,
        check_inputs=parse_setting(InputCheck, check_inputs, "check_inputs"),
        vote_seconds=_vote_seconds(vote_seconds, group),
    )
    key = GraphKey(role, parse_setting(GraphMode, graph_mode, "graph_mode"), variant)
    cut = _unpad(unpad, key)
    may_run_eagerly = policy.actions() & {Action.EAGER, Action.RECAPTURE}
    if policy.mode is Mode.ENFORCE and may_run_eagerly and eager is None:
        raise ConfigurationError(
            f"the guard of {role!r} may have to run a step eagerly and has no eager function",
            hint="give guard(..., eager=...), or on_divergence='raise'",
        )

    def decorate(capture: CaptureFunction) -> GuardedCapture:
        session.mode = policy.mode
        if query_len is not None:
            session.query_lens[role] = query_len
        return GuardedCapture(
            GraphSet(key, capture, policy.mode, session),
            policy,
            session,
            eager=eager,
            choose=choose,
            fill_padding=fill_padding,
            unpad=cut,
            group=group,
        )

    return decorate


def _vote_seconds(seconds: float | None, group: object) -> float | None:
    if seconds is None:
        return None
    if group is None or not 0.0 < seconds <= MAX_VOTE_SECONDS:
        raise ConfigurationError(
            f"vote_seconds={seconds!r} cannot be meant",
            hint=f"give a group, and more than 0 and at most {MAX_VOTE_SECONDS:g} seconds",
        )
    return float(seconds)


def _unpad(unpad: str | Unpad | None, key: GraphKey) -> Unpad | None:
    if unpad == "tokens":
        return lambda outputs, batch, padded: sliced(outputs, padded.num_tokens, batch.num_tokens)
    if unpad == "requests" and key.mode is GraphMode.PIECEWISE:
        raise ConfigurationError(
            f"unpad='requests' cuts nothing off the graphs of {key}, which know only tokens",
            hint="use unpad='tokens' or a function",
        )
    if unpad == "requests":
        return lambda outputs, batch, padded: sliced(outputs, padded.num_reqs, batch.num_reqs)
    if isinstance(unpad, str):
        raise ConfigurationError(
            f"unpad={unpad!r} does not exist", hint="use 'tokens', 'requests' or a function"
        )
    return unpad
