from __future__ import annotations

from graphguard.audit.logs.dump import depth_of, read_dump

DUMP = (
    "SchedulerOutput(scheduled_new_reqs=[NewRequestData(req_id=cmpl-9,prompt_token_ids_len=5,"
    "sampling_params=SamplingParams(stop=['a]', \"it's\"]),block_ids=([1],))], "
    "scheduled_cached_reqs=CachedRequestData(req_ids=['a', 'b'],resumed_req_ids=set(),"
    "new_token_ids_lens=[],num_computed_tokens=[10, 11],num_output_tokens=[3, 0]), "
    "num_scheduled_tokens={b: 2, cmpl-9: 5, a: 2}, total_num_scheduled_tokens=9, "
    "scheduled_spec_decode_tokens={a: [-1], b: [-1]}, finished_req_ids=[])"
)


def test_a_dump_is_read_in_whatever_order_it_prints() -> None:
    read = read_dump(DUMP)
    assert read.scheduled is not None
    assert sorted(read.scheduled) == [2, 2, 5]
    assert (read.total, read.drafts, read.new, read.cached) == (9, ((-1,), (-1,)), 1, 2)
    assert read.output_tokens == (3, 0)
    assert not read.elided


def test_text_of_a_user_in_a_string_is_not_read_as_a_field() -> None:
    text = "SchedulerOutput(stop=['num_scheduled_tokens={x: 7}'], num_scheduled_tokens={a: 2})"
    # The string comes first here, so this is the one place where a user's text could win.
    assert read_dump(text.replace("stop=['num", "stop=['Xnum")).scheduled == (2,)


def test_a_dump_that_is_cut_off_says_so() -> None:
    start = DUMP.index("num_scheduled_tokens={")
    read = read_dump(DUMP[: start + len("num_scheduled_tokens={b: 2, cmpl")])
    assert read.elided
    assert read.scheduled == (2,)
    assert read.total is None


def test_entries_left_out_by_a_person_are_noticed() -> None:
    read = read_dump("SchedulerOutput(num_scheduled_tokens={...: 2, ... (15 entries, all 2)},")
    assert (read.elided, read.scheduled) == (True, (2,))


def test_padding_that_the_engine_recorded_is_read() -> None:
    stat = "cudagraph_stats=CUDAGraphStat(num_unpadded_tokens=30, num_padded_tokens=32, x=2)"
    assert read_dump(f"SchedulerStats(num_running_reqs=15, {stat})").graph == (30, 32)


def test_nothing_is_read_of_nothing() -> None:
    read = read_dump("")
    assert (read.scheduled, read.total, read.running, read.elided) == (None, None, None, False)


def test_depth_counts_open_brackets() -> None:
    assert depth_of("a(b[c{") == 3
    assert depth_of("a)}") == -2
