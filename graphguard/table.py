"""The signature table: the native check, fed with signatures."""

from __future__ import annotations

from collections.abc import Iterable

try:
    from graphguard import _core
except ImportError as error:
    raise ImportError(
        f"the native module of graphguard does not load: {error}\n"
        "  Hint: install graphguard again with this Python, or run `make install` in a checkout"
    ) from error
from graphguard.errors import ConfigurationError
from graphguard.signature import GraphKey, GraphMode, Signature, TensorSpec
from graphguard.verdict import Action, Reason, make_verdict

InputFields = tuple[int, int, int, tuple[int, ...]]
"""dtype id, device id, address, shape: a static tensor as the native check takes it."""


class SignatureTable(_core.SignatureTable):
    """Signatures of captured graphs, and the check of a batch against them.

    ``check(family, num_reqs, query_len, num_tokens, phase)`` is the native method itself: it
    takes no lock, allocates nothing and creates no Python object. Its rules are the table in
    ``csrc/core/rules.h``. Arguments are positional; ``family`` comes from :meth:`family`.
    """

    def __init__(self) -> None:
        super().__init__(make_verdict)
        self._families: dict[GraphKey, int] = {}
        self._ids: dict[str, int] = {}

    def family(self, key: GraphKey) -> int:
        """Return the id of the family of graphs under ``key``, made if it is new."""
        if key not in self._families:
            self._families[key] = self.add_family(key.mode is GraphMode.PIECEWISE)
        return self._families[key]

    def add(self, signature: Signature) -> int:
        """Insert a signature and return the id of its graph: 0 for the first, counting up.

        Raises:
            ConfigurationError: If the graph has more static inputs, or one of more dimensions,
                than the native table takes.
        """
        batch = signature.batch
        return self.insert(
            self.family(signature.key),
            batch.num_reqs,
            batch.query_len,
            batch.num_tokens,
            batch.phase,
            self.input_fields(signature.inputs),
        )

    def replace(self, graph: int, signature: Signature) -> None:
        """Take the static inputs of a graph that was captured again."""
        self.replace_inputs(graph, self.input_fields(signature.inputs))

    def on(self, reason: Reason, action: Action) -> None:
        """Set what the policy does about a reason."""
        self.set_fallback(reason, action)

    def input_fields(self, inputs: Iterable[TensorSpec]) -> list[InputFields]:
        """Return static tensors in the form that ``check_inputs`` takes."""
        fields = [
            (self._id(spec.dtype), self._id(spec.device), spec.address, spec.shape)
            for spec in inputs
        ]
        if len(fields) > _core.MAX_INPUTS or any(len(f[3]) > _core.MAX_RANK for f in fields):
            raise ConfigurationError(
                f"a graph with {len(fields)} static inputs cannot be checked",
                hint=f"give at most {_core.MAX_INPUTS} inputs of at most {_core.MAX_RANK} "
                "dimensions: those that the caller fills between replays",
            )
        return fields

    def _id(self, name: str) -> int:
        return self._ids.setdefault(name, len(self._ids))
