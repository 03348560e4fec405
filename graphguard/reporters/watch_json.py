"""All ranks of a job as JSON for programs: one object for each look, on a line of its own.

Fields may be added; what is there stays.
"""

from __future__ import annotations

from typing import Any

import msgspec

from graphguard.blackbox.pulse import Activity, Pulse
from graphguard.reporters import watch_words as words
from graphguard.reporters.blackbox_json import json_lines
from graphguard.watch.looking.bundles import Bundle
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.looking.view import View, doing, is_stalled, limit_ns

SCHEMA = "graphguard.watch"
VERSION = 1


def render(view: View) -> str:
    """Return one look as a line."""
    document = {
        "schema": SCHEMA,
        "version": VERSION,
        "time_ns": view.looked_ns,
        "where": view.where,
        "trouble": view.trouble,
        "ended": view.ended,
        "ranks": [_rank(state) for state in view.ranks],
        "stalls": [_bundle(bundle, view) for bundle in view.bundles],
    }
    return json_lines(msgspec.json.encode(document) + b"\n")


def _rank(state: RankState) -> dict[str, Any]:
    process = state.process
    return {
        "rank": state.rank,
        "world_size": state.world_size,
        "pid": state.pid,
        "host": state.host,
        "ring": state.ring,
        "state": str(doing(state)),
        "process": {
            "state": process.state,
            "alive": process.alive,
            "name": process.name,
            "cpu_ns": process.cpu_ns,
            "threads": process.num_threads,
        },
        "group": words.group(state) or None,
        "step": words.step(state) or None,
        "doing": words.what(state),
        "age_ns": words.age_ns(state),
        "pulse": None if state.pulse is None else _pulse(state.pulse),
        "last": {
            group: {**msgspec.to_builtins(last), "digest": f"{last.digest:016x}"}
            for group, last in state.last.items()
        },
        "verdicts": state.verdicts,
        "divergences": state.divergences,
        "counted_from": state.counted_from,
        "missed": state.missed,
        "note": state.note or None,
        "breadcrumbs": [
            {**msgspec.to_builtins(crumb), "digest": f"{crumb.digest:016x}"}
            for crumb in state.crumbs
        ],
        "closed": state.closed,
    }


def _pulse(pulse: Pulse) -> dict[str, Any]:
    return {
        "activities": [_activity(pulse, activity) for activity in pulse.activities],
        "beat_age_ns": pulse.beat_age_ns,
        "stall_ns": pulse.stall_ns,
        "extended_ns": pulse.extended_ns,
        "extended_why": pulse.extended_why or None,
        "ended": pulse.ended,
        "stalls": pulse.stalls,
    }


def _activity(pulse: Pulse, activity: Activity) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(activity),
        "digest": f"{activity.digest:016x}",
        "text": words.activity(activity),
        "limit_ns": limit_ns(pulse, activity),
        "stalled": is_stalled(pulse, activity),
    }


def _bundle(bundle: Bundle, view: View) -> dict[str, Any]:
    return {
        "path": bundle.path,
        "made_ns": bundle.made_ns,
        "open": bundle in view.open_stalls,
        "examined": bundle.examined,
        "over": bundle.over or None,
        "over_seconds": bundle.over_seconds,
        "problem": bundle.problem or None,
        "nodes": bundle.nodes or None,
        "verdict": None if bundle.verdict is None else msgspec.to_builtins(bundle.verdict),
    }
