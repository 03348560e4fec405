"""Every environment variable that graphguard reads."""

from __future__ import annotations

from graphguard.environment.variable import Variable

MODE = Variable(
    "GRAPHGUARD_MODE", "off, observe or enforce, for guards that name no mode", "observe"
)
DIRECTORY = Variable(
    "GRAPHGUARD_DIR",
    "where manifests and black boxes are written; without it no manifest is written, and black "
    "boxes go to a private directory of the user",
    "",
)
RING_ENTRIES = Variable(
    "GRAPHGUARD_RING_ENTRIES",
    "how many records the black box of a process keeps, rounded up to a power of two; 0 for no "
    "black box",
    "16384",
)
WHEN_STUCK = Variable(
    "GRAPHGUARD_WHEN_STUCK",
    "exit or report: what a rank does, when enforcing, that waits in a launch which another rank "
    "has refused or will never reach",
    "exit",
)
MAX_RING_ENTRIES = 2**24
AGREE_SECONDS = Variable(
    "GRAPHGUARD_AGREE_SECONDS",
    "how long the ranks of a group wait for each other when their captures are compared, in "
    "seconds; without it 300 when enforcing, and 30 in observe, where the program matters more",
    "",
)
MAX_AGREE_SECONDS = 86_400.0
METRICS = Variable(
    "GRAPHGUARD_METRICS",
    "auto or off: whether this process counts what it does for Prometheus, where the package "
    "prometheus-client is installed",
    "auto",
)
METRICS_RUN = Variable(
    "GRAPHGUARD_METRICS_RUN",
    "which processes' metrics are shown together; set by the first process for its children",
    "",
)
DECISIONS = Variable(
    "GRAPHGUARD_DECISIONS",
    "a file or a directory: where each process writes its decisions as JSON lines, each process "
    "into a file of its own; without it they are not written",
    "",
)
ON_MISMATCH = Variable(
    "GRAPHGUARD_ON_MISMATCH",
    "degrade, eager or raise: what vLLM does, when enforcing, with a step whose graph does not fit",
    "degrade",
)
PADDED = Variable(
    "GRAPHGUARD_PADDED",
    "allow or avoid: whether vLLM replays full graphs, when enforcing, for smaller batches",
    "allow",
)
UNIFORM_GRAPHS = Variable(
    "GRAPHGUARD_UNIFORM_GRAPHS",
    "0 or 1: whether vLLM's V1 runner also captures full graphs for decodes of one token each, "
    "beside those that verify drafts",
    "0",
)
DECODE_STEPS = Variable(
    "GRAPHGUARD_DECODE_STEPS",
    "how many steps of decodes the uniform scheduler for vLLM runs at most while prefills wait",
    "4",
)
RUN = Variable(
    "GRAPHGUARD_RUN",
    "where each Python process of graphguard run says that it has started; set by that command",
    "",
)
INSTALL = Variable(
    "GRAPHGUARD_INSTALL",
    "0 or 1: whether every CUDA graph of torch is recorded in this process, from the import of "
    "torch on",
    "0",
)
CUDA_DRIVER = Variable(
    "GRAPHGUARD_CUDA_DRIVER",
    "the library that is opened as the CUDA driver; for tests",
    "libcuda.so.1",
)
INTERPOSE = Variable(
    "GRAPHGUARD_INTERPOSE",
    "0 or 1: whether NCCL's interposer is loaded when graphguard is imported, which has to be "
    "before torch and cupy",
    "0",
)
NCCL_PLUGIN = Variable(
    "GRAPHGUARD_NCCL_PLUGIN",
    "0 or 1: whether NCCL is given graphguard's profiler plugin when graphguard is imported, which "
    "has to be before the first communicator",
    "0",
)
NEXT_PLUGIN = Variable(
    "GRAPHGUARD_NEXT_PROFILER_PLUGIN",
    "another profiler plugin that NCCL's events are passed on to, in the forms of "
    "NCCL_PROFILER_PLUGIN; without it, the one that was there before",
    "",
)
NCCL_LIBRARY = Variable(
    "GRAPHGUARD_NCCL_SO",
    "the file of the real NCCL that the interposer calls; without it, the one that is loaded, the "
    "one of NVIDIA's wheel, or the one that the loader finds",
    "",
)
STALL_SECONDS = Variable(
    "GRAPHGUARD_STALL_SECONDS",
    "how long a launch or a step may be under way before it is looked at as a stall, in seconds; "
    "0 for no watchdog",
    "5",
)
STALL_STARTUP_SECONDS = Variable(
    "GRAPHGUARD_STALL_STARTUP_SECONDS",
    "the same for what an engine does at its start: loading, compiling, capturing",
    "60",
)
SLOW_SECONDS = Variable(
    "GRAPHGUARD_SLOW_SECONDS",
    "how long what is seen to be slow and not stuck may go on before it is a stall all the same, "
    "in seconds",
    "300",
)
ON_STALL = Variable(
    "GRAPHGUARD_ON_STALL",
    "report, abort or signal:COMMAND: what is done about a stall after its evidence is kept: "
    "nothing more, end the processes of all ranks of this node, or run a command",
    "report",
)
STALL_LOG = Variable(
    "GRAPHGUARD_STALL_LOG",
    "the log file of the engine, whose last lines are kept with the evidence of a stall; without "
    "it, what the output of the processes goes to if that is a file",
    "",
)
STALL_COREDUMP = Variable(
    "GRAPHGUARD_STALL_COREDUMP",
    "0 or 1: whether processes that CUDA lets dump their GPUs on request are asked to at a stall; "
    "that stops the GPUs and may write gigabytes",
    "0",
)
BREADCRUMBS = Variable(
    "GRAPHGUARD_BREADCRUMBS",
    "0 or 1: whether captured graphs get marks that say how far a replay got",
    "0",
)
MAX_STALL_SECONDS = 86_400.0
VARIABLES = (
    MODE,
    DIRECTORY,
    RING_ENTRIES,
    WHEN_STUCK,
    AGREE_SECONDS,
    ON_MISMATCH,
    PADDED,
    UNIFORM_GRAPHS,
    DECODE_STEPS,
    METRICS,
    METRICS_RUN,
    DECISIONS,
    RUN,
    INSTALL,
    CUDA_DRIVER,
    INTERPOSE,
    NCCL_LIBRARY,
    NCCL_PLUGIN,
    NEXT_PLUGIN,
    STALL_SECONDS,
    STALL_STARTUP_SECONDS,
    SLOW_SECONDS,
    ON_STALL,
    STALL_LOG,
    STALL_COREDUMP,
    BREADCRUMBS,
)
