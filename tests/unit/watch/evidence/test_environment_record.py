"""In what a real process ran."""

from __future__ import annotations

import json

from graphguard.watch.evidence import environment_record
from graphguard.watch.evidence.redaction import Redactor
from tests.unit.watch.stuck_processes import SLEEPER, running


def test_the_record_of_a_process_has_what_matters_and_no_more() -> None:
    given = {
        "NCCL_DEBUG": "INFO",
        "VLLM_API_KEY": "open-sesame-1",
        "MY_OWN_VARIABLE": "private matter",
        "NCCL_CONF": "redis://me:open-sesame-2@host/0",
    }
    with running(SLEEPER, **given) as pid:
        environment = environment_record.read_environment(pid)
        told = environment_record.record([pid], {pid: environment}, Redactor([environment]))
    process = told["processes"][str(pid)]
    assert process["variables"]["NCCL_DEBUG"] == "INFO"
    assert process["variables"]["VLLM_API_KEY"] == "<redacted>"
    assert process["variables"]["NCCL_CONF"] == "redis://<redacted>@host/0"
    assert "MY_OWN_VARIABLE" not in process["variables"]
    assert process["variables_left_out"] >= 1
    assert process["limits"]["Max open files"]
    assert process["executable"].startswith("/")
    assert told["versions"]["graphguard"]
    assert told["machine"]["kernel"].startswith("Linux")
    assert told["shared_memory"]["bytes"] > 0
    text = json.dumps(told)
    assert "open-sesame" not in text
    assert "private matter" not in text


def test_a_process_that_is_gone_has_an_empty_record() -> None:
    with running(SLEEPER) as pid:
        pass
    assert environment_record.read_environment(pid) == {}
    told = environment_record.record([pid], {}, Redactor())
    assert told["processes"][str(pid)]["variables"] == {}
