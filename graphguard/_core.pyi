"""The native half of graphguard: signature table, ledger, black box, nodes of CUDA graphs."""

from collections.abc import Callable, Sequence
from mmap import mmap

from graphguard.verdict import Verdict

PHASE_COUNT: int
ACTION_COUNT: int
REASON_COUNT: int
MAX_INPUTS: int
MAX_RANK: int

def noop(a: int, b: int, c: int, d: int, e: int, /) -> None:
    """Do nothing: the baseline that the benchmarks measure a check against."""

def phase_of(computed: object, prompts: object, num_reqs: int, /) -> int:
    """Return the phase of a batch.

    Args:
        computed: For each request, how many of its tokens are computed: int32, contiguous.
        prompts: For each request, how many tokens its prompt has: int32, contiguous.
        num_reqs: How many requests at the beginning of the arrays are in the batch.

    Raises:
        TypeError: If the arrays are not as above.
        IndexError: If they are shorter.
    """

class Phases:
    """The phase of batches whose requests are counted in arrays that stay where they are.

    Args:
        computed: As in :func:`phase_of`.
        prompts: As there.
        last_token_decodes: Whether a request that lacks one token of its prompt, over computed
            ones, counts as a decode.
    """

    def __init__(self, computed: object, prompts: object, last_token_decodes: bool, /) -> None: ...
    def of(self, num_reqs: int, /) -> int:
        """Return the phase of the batch of that many requests, as the arrays are now."""

class Launches:
    """Marks where an engine's launches begin and end, and counts how long they take to return.

    Args:
        shift: The shortest are under 2 to the power of this, in nanoseconds.
        buckets: How many powers of two are counted apart.

    Attributes:
        replays: Whether the next launch is a replay; eager otherwise.
    """

    def __init__(self, shift: int, buckets: int, /) -> None: ...
    replays: bool
    def write_to(self, ring: BlackBox | None, /) -> None:
        """Write the marks into a black box, or into none."""

    def begin(self) -> None:
        """Note that a launch begins."""

    def end(self) -> None:
        """Note that it has returned."""

    @property
    def in_flight(self) -> bool:
        """Whether a launch has begun and not returned."""

    @property
    def began(self) -> int:
        """When the last one began, in nanoseconds of the monotonic clock; 0 before the first."""

    @property
    def nanoseconds(self) -> int:
        """How long all of them took together."""

    @property
    def counts(self) -> list[int]:
        """How many took how long, by powers of two."""

class Steps:
    """Checks and publishes steps that fit the graph chosen for them, in one call each."""

    def __init__(self, table: SignatureTable, ledger: Ledger, launches: Launches, /) -> None: ...
    def set_replay(self, graph: int, launch: int, /) -> None:
        """Set what the ledger calls the replay of a graph."""

    def take(
        self, graph: int, num_reqs: int, query_len: int, num_tokens: int, phase: int, /
    ) -> Verdict | None:
        """Return the verdict of a step that was published and is to be launched, else None."""

    def last(self) -> tuple[Verdict | None, int]:
        """Return the verdict of the last step that was not finished, and the ledger's answer.

        The answer is -1 where the step was not published.
        """

class SignatureTable:
    """Recorded graphs, and the check of a batch against them."""

    def __init__(self, make_verdict: Callable[[int, int, int | None], Verdict], /) -> None: ...
    def add_family(self, piecewise: bool, /) -> int:
        """Add a family of graphs and return its id."""

    def insert(
        self,
        family: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        inputs: Sequence[tuple[int, int, int, Sequence[int]]],
        /,
    ) -> int:
        """Insert a graph with its static inputs (dtype, device, address, shape); return its id."""

    def replace_inputs(
        self, graph: int, inputs: Sequence[tuple[int, int, int, Sequence[int]]], /
    ) -> None:
        """Replace the static inputs of a graph."""

    def set_fallback(self, reason: int, action: int, /) -> None:
        """Set the action for a reason that a batch does not fit."""

    def check(
        self, family: int, num_reqs: int, query_len: int, num_tokens: int, phase: int, /
    ) -> Verdict:
        """Decide which graph of a family a batch may use, if any."""

    def check_graph(
        self, graph: int, num_reqs: int, query_len: int, num_tokens: int, phase: int, /
    ) -> Verdict:
        """Decide whether a batch may use one given graph."""

    def check_inputs(
        self,
        graph: int,
        inputs: Sequence[tuple[int, int, int, Sequence[int]]],
        addresses: bool,
        /,
    ) -> tuple[int, int]:
        """Compare static tensors with those recorded; return (reason, index of the tensor)."""

    def counts(self) -> list[tuple[Verdict, int]]:
        """Return every verdict given so far, with how often."""

    def __len__(self) -> int: ...

class BlackBox:
    """A ring of records in a mapped file, which outlives the process that writes it.

    Several of these may write one ring: see `another`.
    """

    def __init__(
        self,
        fd: int,
        bytes: int,
        rank: int,
        world_size: int,
        pid: int,
        host: str,
        capacity: int,
        /,
    ) -> None:
        """Map an empty file of ``ring_bytes(capacity)`` bytes; ``fd`` may be closed afterwards.

        Takes about 0.2 ms, to measure the clocks.

        Raises:
            OSError: If the file cannot be mapped, or the disk has no room for it.
            ValueError: If it holds a ring already, or has another size than the capacity asks for.
        """

    def another(self) -> BlackBox:
        """Return another writer of the same ring, which remembers a check of its own."""

    def name(self, text: str, /) -> int:
        """Return the index by which records refer to a name; 0xFFFF if there is room for no more.

        What is longer than 120 bytes is cut and ends in "…".
        """

    def begin_activity(self, kind: int, name: int, step: int, /) -> None:
        """Say that something is under way which is no launch, in this thread.

        Raises:
            ValueError: If the kind is that of a launch, or none.
        """

    def end_activity(self, kind: int, name: int, /) -> None:
        """Say that it has ended."""

    def extend(self, seconds: float, why: int, /) -> None:
        """Say that what is under way is slow and not stuck, for some seconds from now.

        Raises:
            ValueError: If that is not 0 to 86,400 seconds.
        """

    def set_stacks(self, signal: int, file: int, /) -> None:
        """Say on which signal this process writes its stacks, and to which file; 0 for none."""

    def record(
        self,
        event: int,
        role: int,
        group: int,
        step: int,
        digest: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        action: int,
        reason: int,
        peer: int,
        flags: int,
        detail: int,
        /,
    ) -> None:
        """Write a record. What is not known is 0xFF or 0xFFFF."""

    def check(
        self,
        role: int,
        group: int,
        step: int,
        digest: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        action: int,
        reason: int,
        flags: int,
        /,
    ) -> None:
        """Write a record of a check, and remember it."""

    def replace(
        self,
        digest: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        action: int,
        reason: int,
        flags: int,
        /,
    ) -> None:
        """Remember another launch in the place of the checked one, without a record."""

    def mark(self, event: int, /) -> None:
        """Write what was remembered of the last check as a record of another event."""

    @property
    def written(self) -> int:
        """How many records were begun, overwritten ones and those of the clocks included."""

    def disown(self) -> None:
        """Make every later call of every writer of this ring do nothing: it is the parent's."""

_Identity = tuple[int, int, int, str, int, int, int]
_Record = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]

def ring_bytes(capacity: int, /) -> int:
    """Return the size of a black box of so many records.

    Raises:
        ValueError: If that is no power of two, or more than 2**24.
    """

class Watchdog:
    """A thread that looks at what the process has under way, without the interpreter's lock."""

    def __init__(
        self,
        ring: BlackBox,
        stall_seconds: float,
        startup_seconds: float,
        tick_seconds: float,
        command: list[str],
        environment: list[str],
        directory: str,
        job: str,
        /,
    ) -> None:
        """Prepare it.

        Args:
            ring: Whose pulse it looks at.
            stall_seconds: How long an activity may take.
            startup_seconds: The same for an engine's start, and for captures.
            tick_seconds: How often it looks.
            command: What starts the examiner; options that say what is found are appended.
            environment: The variables of the examiner, as ``NAME=value``.
            directory: Where ``stall-<job>.lock`` is.
            job: The name of the job while no ledger is added.

        Raises:
            ValueError: If a time is not above 0, or there is no command.
        """

    def add_ledger(self, fd: int, bytes: int, name: str, ranks: list[int], job: str, /) -> None:
        """Tell the examiner of the ranks that share a ledger; ``fd`` may be closed afterwards.

        The job is that of the widest ledger, so that all its ranks have one lock.

        Raises:
            OSError: If the descriptor cannot be duplicated.
        """

    def remove_ledger(self, job: str, /) -> None:
        """Tell it of them no more."""

    def start(self) -> None:
        """Start the thread. Called again, it does nothing.

        Raises:
            OSError: If there can be no more threads.
        """

    def stop(self) -> None:
        """End the thread and wait until it has ended. In a forked child it does nothing."""

    @property
    def started(self) -> int:
        """How many examiners it has started."""

PULSE_BYTES: int
"""How much of the beginning of a ring its pulse and its names take."""

ActivityRow = tuple[int, int, int, int, int, int, int, int, int, int, int, int]
PulseHead = tuple[int | None, int, int, int, int, int, int, int, int, int]

def read_pulse(
    copy: bytes | bytearray | memoryview | mmap,
    copy_after: bytes | bytearray | memoryview | mmap,
    live: bool,
    /,
) -> tuple[list[ActivityRow], list[str | None], PulseHead] | None:
    """Read the pulse from two copies of the first ``PULSE_BYTES`` of a ring: None if it has none.

    Times are told as of now if the ring is ``live``, else as of the last beat. Returns what is
    under way, oldest first, as (kind, name, group, step, digest, num_reqs, query_len, num_tokens,
    phase, thread, age in ns, watched ns); the names; and (age of the last beat in ns or None, limit
    of a stall in ns, of a start, stalls told, ns missed, ns left of an extension, its reason,
    signal for stacks, file of the stacks, activities ended).
    """

def read_ring(
    data: bytes | bytearray | memoryview | mmap, /
) -> tuple[str, _Identity, list[str | None], list[_Record], int]:
    """Read a black box: (error, identity, names, records, damaged).

    The error says why nothing could be read; else it is empty. The identity is (rank, world size,
    process id, host, capacity, time at which it was opened in ns since the epoch, records begun).
    A name is None where its slot is damaged. Records come in the order of their numbers, as
    (number, time in ns since the epoch, step, digest, num_reqs, query_len, num_tokens, role, group,
    event, action, reason, phase, peer, flags, detail); the time is 0 where no clock record is left.
    ``damaged`` counts the slots that hold something that was not written whole.
    """

LEDGER_SLOTS: int
NOTICES_DUE: int
TROUBLE_TOLD: int
DISOWNED: int
STOPPED: int

LaunchFields = tuple[int, int, int, int, int, int, int, int, int]
"""kind, reason, key, digest (high, low), requests, query length, tokens, phase."""

def ledger_bytes(num_ranks: int, /) -> int:
    """Return how large the segment of a ledger is."""

def initialise_ledger(fd: int, bytes: int, num_ranks: int, token: int, /) -> None:
    """Make a ledger of a zeroed segment."""

class Ledger:
    """What the ranks of a node are about to launch, step by step, in shared memory.

    The protocol is in ``csrc/core/ledger.h``.
    """

    def __init__(
        self, fd: int, bytes: int, rank: int, token: int, pid: int, enforces: bool, /
    ) -> None:
        """Join a ledger.

        Raises:
            RuntimeError: If the memory is no such ledger, or the place of the rank is taken.
        """

    def add_launch(
        self,
        kind: int,
        digest_high: int,
        digest_low: int,
        key: int,
        ring: BlackBox | None,
        role: int,
        group: int,
    ) -> int:
        """Register something that may be launched and return its id."""

    def propose(
        self,
        launch: int,
        reason: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        /,
    ) -> int:
        """Publish the next step and look at the other ranks; 0 says that nothing is against it.

        Otherwise what was seen (:class:`graphguard.agreement.launches.Seen`) in the low four bits,
        with ``NOTICES_DUE``, ``TROUBLE_TOLD``, ``DISOWNED`` and ``STOPPED``.
        """

    def vote(
        self,
        launch: int,
        reason: int,
        num_reqs: int,
        query_len: int,
        num_tokens: int,
        phase: int,
        seconds: float,
        /,
    ) -> int:
        """The same, but wait for every rank, at most ``seconds``."""

    def settle(self, outcome: int, trouble: int, take_decision: bool, /) -> None:
        """Say what became of a step that was not simply launched, and tell all ranks."""

    def last(self) -> tuple[int, int, LaunchFields]:
        """Return what was seen last: what, of which rank, and that rank's launch."""

    def trouble(self) -> tuple[int, int, int]:
        """Return the first trouble that a rank has told: kind, step, rank; kind 0 for none.

        The last kind of :class:`graphguard.agreement.launches.Trouble` says that the word is
        damaged; then step and rank are this one's.
        """

    def acknowledge_trouble(self) -> None:
        """Mention a difference that was only observed no more."""

    def published(self, rank: int, step: int, /) -> LaunchFields | None:
        """Return what a rank has published for a step, if it is there."""

    def outcome(self, rank: int, step: int, /) -> int:
        """Return what became of it."""

    def passed(self, rank: int, /) -> int:
        """Return the last step that a rank has published."""

    def pid(self, rank: int, /) -> int:
        """Return the process of a rank; 0 if it has not joined."""

    def has_left(self, rank: int, /) -> bool:
        """Whether a rank has said that its process ends."""

    def leave(self) -> None:
        """Say that the process of this rank ends."""

    def step(self) -> int:
        """Return the last step of this rank."""

    def announce(
        self, kind: int, subject_high: int, subject_low: int, key: int, margin: int, /
    ) -> int | None:
        """Announce something from a step on that no rank has passed, and return that step.

        None if every try was overtaken, or there is no room for more.
        """

    def take_due(self) -> list[tuple[int, int, int, int, int, int]]:
        """Return notices that hold from the next step on, each once.

        kind, rank, first step, digest (high, low), key.
        """

    def window(self, steps: int, /) -> list[tuple[int, int, int]]:
        """Return the last steps of this rank, oldest first: step, digest, rolling digest."""

    def stop(self) -> None:
        """Let every later proposal answer ``STOPPED``. May be called from another thread."""

    def disown(self) -> None:
        """Publish no more: this is a child after a fork, and the place is its parent's."""

_Extent = tuple[int, int, int]
_Node = tuple[str, str, _Extent | None, _Extent | None, int, tuple[int, ...], int]
_Contents = tuple[list[_Node], int, str]

def capture_id(stream: int, /) -> int:
    """Return the id of what a CUDA stream is being captured into; 0 for nothing, or unknown."""

def capture_of(stream: int, /) -> tuple[int, int, int] | None:
    """Return what a CUDA stream is being captured into: (id, graph, status); None where unknown.

    The status is 0 for nothing, 1 for a capture, 2 for one that was invalidated; id and graph are
    0 then.
    """

def walk_graph(graph: int, /) -> _Contents:
    """Return what a CUDA graph holds: (nodes, unreadable, error).

    A node is (kind, name, grid, block, shared bytes, parameter bytes, count), see
    :class:`graphguard.nodes.GraphNode`; nodes come in no order, and alike ones may come apart.
    ``unreadable`` counts nodes of which the driver did not say all; the error says why nodes are
    missing. The graph may still be captured into, by this thread.
    """

def cuda_driver_absence() -> str:
    """Return why this process has no CUDA driver; empty if it has one."""

class CudaDriver:
    """A CUDA driver that is not the process's own: a stand-in in tests."""

    def __init__(self, library: str, /) -> None:
        """Load it. If that is not possible, ``absence`` says why."""

    @property
    def absence(self) -> str:
        """Why there is none; empty if there is one."""

    def capture_of(self, stream: int, /) -> tuple[int, int, int] | None:
        """See :func:`capture_of`."""

    def walk_graph(self, graph: int, /) -> _Contents:
        """See :func:`walk_graph`."""

BREADCRUMB_BYTES: int
BREADCRUMB_HEADER_BYTES: int

_CrumbGraph = tuple[str, int, int, int, int, int, str, int, int, int]
CrumbContents = tuple[str, tuple[int, int, int, str], list[_CrumbGraph], int, int]

def breadcrumb_regions(header: bytes, nbytes: int, /) -> tuple[str, list[tuple[int, int]]]:
    """Return which parts of a file of breadcrumbs are in use.

    Args:
        header: Its first ``BREADCRUMB_HEADER_BYTES`` bytes, or fewer if it has no more.
        nbytes: How many bytes it has.

    Returns:
        Why they are none; and offset and bytes of the graphs, the texts, the texts of the marks,
        and the numbers of the marks.
    """

def read_breadcrumbs(
    header: bytes,
    graphs: bytes,
    texts: bytes,
    texts_of_marks: bytes,
    numbers: bytes,
    in_flight: bool = False,
    /,
) -> CrumbContents:
    """Read the parts of a file of breadcrumbs, copied in this order.

    Args:
        header: As above.
        graphs: As above.
        texts: As above.
        texts_of_marks: As above.
        numbers: As above.
        in_flight: Whether to leave graphs out of which no replay is in flight.

    Returns:
        Why there are none; rank, number of ranks, process id and host; of each graph that may be
        launched still its name, digest, launches, finished replays, marks that the replay in
        flight has passed, marks, the call of the first that it has not, kind, kernels without a
        mark, and when it was captured; how many graphs there was no room for; and how many are
        damaged.
    """

class GraphMarks:
    """The marks of one captured graph."""

    def launch(self) -> None:
        """Count a launch, just before it."""

    def withdraw(self) -> None:
        """Take back the last launch, which came to nothing."""

    def passed(self, mark: int, /) -> None:
        """Count up a mark of a graph that no device runs."""

    def settle(self) -> None:
        """Say of a graph that no device runs that nothing of it is in flight."""

    def describe(self, name: str, digest: int, texts: Sequence[str], /) -> None:
        """Say what the graph is called, and with one text for each mark, what calls they are of."""

    def retire(self) -> None:
        """Say that the graph is launched no more; its place may be used again."""

    def abandon(self) -> None:
        """The same, for one whose launches are not known; its place is never used again."""

    def __len__(self) -> int:
        """Return how many marks there are."""

class Breadcrumbs:
    """The writer of a file of breadcrumbs.

    Args:
        descriptor: Of a file of ``BREADCRUMB_BYTES`` zeros. It may be closed afterwards.
        rank: Global rank of the process.
        world_size: Number of processes of the job.
        pid: Process id.
        host: Name of the machine.

    Raises:
        OSError: If the file cannot be mapped.
        ValueError: If it holds breadcrumbs already.
    """

    def __init__(
        self, descriptor: int, rank: int, world_size: int, pid: int, host: str, /
    ) -> None: ...
    def add(self, texts: Sequence[str], kind: int, missing: int, /) -> GraphMarks | None:
        """Take a place for a graph with one mark for each text; None if there is no room.

        Args:
            texts: What call each mark is of, in the order of the capture.
            kind: What counts them up, by its place in ``graphguard.watch.breadcrumbs.KINDS``.
            missing: How many communication kernels have no mark.
        """

    def disown(self) -> None:
        """Write no more: this is a child after a fork, and the file is its parent's."""

class GraphMarker:
    """Adds marks to graphs of the CUDA driver.

    Args:
        crumbs: Whose numbers they count up.
        library: The file of a driver to ask, for tests; empty for the one of this process.
    """

    def __init__(self, crumbs: Breadcrumbs, library: str, /) -> None: ...
    def prepare(self) -> str:
        """Do what is needed once in a context; return why that cannot be done."""

    def kernels(self, graph: int, /) -> tuple[list[str], list[tuple[int, int]], str]:
        """Return the kernels of a graph in an order in which it may run them.

        Returns:
            Their names, each once; of each kernel its node and which name it has; and why they
            are not there.
        """

    def mark(self, graph: int, nodes: Sequence[int], marks: GraphMarks, kind: int, /) -> str:
        """Add a leaf behind each node, which counts up the mark of its place; return why not.

        Raises:
            ValueError: If there are not as many marks as nodes.
        """
