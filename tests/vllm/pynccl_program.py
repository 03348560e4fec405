"""vLLM's own wrapper of NCCL in a recording: ``python -m tests.vllm.pynccl_program INTERPOSER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from vllm.distributed.device_communicators.pynccl_wrapper import (
    NCCLLibrary,
    buffer_type,
    cudaStream_t,
    ncclDataTypeEnum,
    ncclRedOpTypeEnum,
)

from graphguard import BatchDescriptor, Session, record
from graphguard.recorders import nccl_interposer


def main() -> None:
    """Make a communicator of two ranks as rank 0, record an all-reduce, and print it."""
    nccl_interposer.LIBRARY = Path(sys.argv[1])
    library = NCCLLibrary()
    communicator = library.ncclCommInitRank(2, library.ncclGetUniqueId(), 0)
    tensor = torch.zeros(16, dtype=torch.bfloat16)
    with record("target", BatchDescriptor.of(4, 1), session=Session()) as recording:
        library.ncclAllReduce(
            buffer_type(tensor.data_ptr()),
            buffer_type(tensor.data_ptr()),
            tensor.numel(),
            ncclDataTypeEnum.from_torch(tensor.dtype),
            ncclRedOpTypeEnum.from_torch(torch.distributed.ReduceOp.MAX),
            communicator,
            cudaStream_t(0),
        )
    calls = [
        (c.operation, c.count, c.dtype, c.reduction, c.group_size, c.seen_by)
        for c in recording.signature.collectives
    ]
    print(json.dumps(calls))


if __name__ == "__main__":
    main()
