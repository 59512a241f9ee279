"""What an imported folder holds and what was left out, drawn for 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.report.leaderboard import percent


def imported_view(summary: Mapping[str, Any]) -> RenderableType:
    """Draw the summary of `import_data` with its `folder`: what each file gave, then what was not kept and why."""
    given = Table(box=None, pad_edge=False, show_header=False)
    given.add_column(style="dim")
    given.add_column(overflow="fold")
    parts = {name: (_file, found) for name, found in summary["imports"].items()}
    parts |= {
        name: (drawn, summary[name])
        for name, drawn in (("sequences", _sequences), ("features", _features))
        if name in summary
    }
    for name, (lines, found) in parts.items():
        for i, line in enumerate(lines(found)):
            given.add_row("" if i else name, Text(line))
    drawn: list[RenderableType] = [Text(summary["folder"], style="bold"), given]
    left_out = [
        row for found in (*summary["imports"].values(), summary.get("sequences", {})) for row in _left_out(found)
    ]
    if left_out:
        table = Table(box=None, pad_edge=False)
        table.add_column("not kept")
        table.add_column("", justify="right")
        table.add_column("such as", overflow="fold")
        for row in left_out:
            table.add_row(*row)
        drawn += [Text(""), table]
    return Group(*drawn)


def _left_out(found: Mapping[str, Any]) -> Iterator[tuple[Text, str, Text]]:
    for reason, one in found.get("not_kept", {}).items():
        yield Text(reason), f"{one['count']:,}", Text(one["examples"][0])


def _file(found: Mapping[str, Any]) -> Iterator[str]:
    yield found["file"]
    if "questions" in found:
        empty = found["questions_without_any"]
        what = "candidate" if "candidates" in found else "sequence"
        yield f"{found['questions']:,} questions" + (f", {empty:,} of them without a {what}" if empty else "")
    if "candidates" in found:
        shots, sources = _listed(found["shots"]), _counted(found["sources"])
        threshold = found["settings"].get("correct_threshold")
        yield f"{found['candidates']:,} candidates of {shots} shots from {sources}"
        correct = f"{percent(found['positive_rate'])}% are correct"
        yield correct if threshold is None else f"{correct}, from accuracy {threshold:g} on"
        if found["without_probability"]:
            yield f"{found['without_probability']:,} without a probability of the true answers"
    if "sequences" in found:
        yield f"{found['sequences']:,} sequences of {_listed(found['shots'])} shots"
    if "pool_sizes" in found:
        yield f"pools of {_listed(found['pool_sizes'])}"
    if "rows" in found:
        yield f"{found['rows']:,} rows of {found['width']} ({found['dtype']})"
    for remark, count in found["notes"].items():
        yield f"{count:,} {remark}"


def _sequences(found: Mapping[str, Any]) -> Iterator[str]:
    empty = found["questions_without_sequences"]
    yield f"{found['sequences']:,} sequences" + (f"; {empty:,} questions without one" if empty else "")
    if found["pools_from_sequences"]:
        yield f"pools made from the sequences, as no other file gives them: {found['pools_from_sequences']:,}"


def _features(found: Mapping[str, Any]) -> Iterator[str]:
    line = f"{found['rows']:,} rows from the {found['from']}"
    if found.get("rows_without_text"):
        line += f", {found['rows_without_text']:,} of them without a text: rows of zeros"
    if found.get("rows_of_zeros"):
        line += f", {found['rows_of_zeros']:,} of them zeros"
    yield line


def _listed(counts: Mapping[str, int]) -> str:
    """Sizes: "64", "2 and 3", "10 to 64"."""
    sizes = list(counts)
    return " and ".join(sizes) if len(sizes) < 3 else f"{sizes[0]} to {sizes[-1]}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
