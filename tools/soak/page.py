"""The page of a soak: what was tried, what held, what did not."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from tools.soak.topic import Outcome, Topic

HEAD = """# Reliability

What leverplus was put through, and what held. Written by `make soak` (`python -m tools.soak`), which stops at nothing
and can be stopped: it goes on with the cases that are left, and a case that ran before a change of the code keeps its
outcome until the folder `.soak` is removed. A short form of every topic runs in `make test`.
"""


def render(topics: Mapping[str, Topic], outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Markdown: for each topic its own summary, the cases that were skipped and why, and every fault."""
    parts = [HEAD, f"Ran on {platform.system()} {platform.machine()}, Python {platform.python_version()}.\n"]
    for name, topic in topics.items():
        found = {case.name: outcomes[name][case.name] for case in topic.cases if case.name in outcomes[name]}
        parts.append(f"## {topic.title}\n\n{topic.summary(found)}\n")
        faults = [f"- **{case}**: {fault}" for case, outcome in found.items() for fault in outcome.faults]
        skipped = [f"- {case}: skipped, {outcome.skipped}" for case, outcome in found.items() if outcome.skipped]
        left = len(topic.cases) - len(found)
        tally = (
            f"{len(found)} of {len(topic.cases)} cases ran, {len(faults)} faults."
            if left
            else f"Faults: {len(faults)}."
        )
        parts.append("\n".join([tally, *([""] if faults or skipped else []), *faults, *skipped]) + "\n")
    return "\n".join(parts)
