"""graphguard records what every captured CUDA graph holds and checks a batch before it is replayed.

See the README for what it catches and what it does not.
"""

from typing import TYPE_CHECKING, Any

from graphguard.batch import BatchDescriptor
from graphguard.environment import INTERPOSE, NCCL_PLUGIN, Mode
from graphguard.errors import (
    AgreementError,
    BlackBoxError,
    CaptureError,
    CommandError,
    ConfigurationError,
    DescriptorError,
    GraphguardError,
    GuardMismatch,
    LedgerError,
    ManifestError,
    NestedCapture,
    OperationNotRecordable,
    RankMissing,
    RanksDiverged,
)
from graphguard.graph_set import Captured
from graphguard.graphs import Graph, capture
from graphguard.graphs import new as new_graph
from graphguard.guard import guard
from graphguard.guarded_capture import GuardedCapture
from graphguard.installation import Installation, install, install_if_wanted, uninstall
from graphguard.manifest import Manifest
from graphguard.policy import InputCheck, Policy
from graphguard.recording import Recording, record
from graphguard.session import Session, default_session
from graphguard.signature import CollectiveCall, GraphKey, GraphMode, Signature, TensorSpec
from graphguard.table import SignatureTable
from graphguard.verdict import Action, Phase, Reason, Verdict
from graphguard.version import __version__

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement
    from graphguard.watch.activity import slow

write_manifest = default_session.write_manifest

if INTERPOSE.value:
    # Now, for it has to be before torch and cupy are imported.
    from graphguard.recorders.nccl_interposer import enable_from_environment

    enable_from_environment()

if NCCL_PLUGIN.value:
    # Now, for it has to be before NCCL's first communicator.
    from graphguard.recorders import nccl_plugin

    nccl_plugin.enable_from_environment()

__all__ = [
    "Action",
    "Agreement",
    "AgreementError",
    "BatchDescriptor",
    "BlackBoxError",
    "CaptureError",
    "Captured",
    "CollectiveCall",
    "CommandError",
    "ConfigurationError",
    "DescriptorError",
    "Graph",
    "GraphKey",
    "GraphMode",
    "GraphguardError",
    "GuardMismatch",
    "GuardedCapture",
    "InputCheck",
    "Installation",
    "LedgerError",
    "Manifest",
    "ManifestError",
    "Mode",
    "NestedCapture",
    "OperationNotRecordable",
    "Phase",
    "Policy",
    "RankMissing",
    "RanksDiverged",
    "Reason",
    "Recording",
    "Session",
    "Signature",
    "SignatureTable",
    "TensorSpec",
    "Verdict",
    "__version__",
    "capture",
    "default_session",
    "guard",
    "install",
    "new_graph",
    "record",
    "slow",
    "uninstall",
    "write_manifest",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    # Only guards with a group need it, and it takes a third of the time of this import.
    if name == "Agreement":
        from graphguard.agreement.group import Agreement

        return Agreement
    if name == "slow":
        from graphguard.watch.activity import slow

        return slow
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


install_if_wanted()
