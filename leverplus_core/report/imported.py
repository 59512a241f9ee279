"""What was imported and what was left out, drawn for 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leverplus_core.report.tables import Block, Grid, Remark, Title, View, bracket, percent


def imported_view(summary: Mapping[str, Any]) -> View:
    """Draw the summary of `import_data` with its `folder`: what each file gave, then what was not kept and why."""
    parts = {**summary["imports"], **{name: summary[name] for name in ("sequences", "features") if name in summary}}
    given = [["" if i else name, line] for name, found in parts.items() for i, line in enumerate(_lines(found))]
    left_out = [
        [reason, f"{one['count']:,}", one["examples"][0]]
        for found in parts.values()
        for reason, one in found.get("not_kept", {}).items()
    ]
    blocks: list[Block] = [Title(summary["folder"]), Grid((), given, "mw", gap=2)]
    return View([*blocks, "", Grid(("not kept", "", "such as"), left_out, "wnw", gap=2)] if left_out else blocks)


def samples_view(found: Mapping[str, Any]) -> View:
    """Draw what `leverplus import samples` recorded: where it is, and a row for each log with its interval."""
    lines = [
        [row["method"], str(row["shots"]), f"{row['n']:,}", percent(row["accuracy"]),
         bracket(row["ci_low"], row["ci_high"]), row["log"]]
        for row in found["methods"]
    ]  # fmt: skip
    return View([
        Title(f"{found['name']} ({found['run']}): {found['dataset']} by {found['metric']}"),
        Grid(("method", "shots", "n", "accuracy", "95% interval", "log"), lines, "wnnnnw", gap=1),
        Remark(f"compare two of them: leverplus compare {found['name']}:A {found['name']}:B"),
    ])  # fmt: skip


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    if "file" in found:
        yield found["file"]
    if "candidates" in found:
        shots = _sizes(found["shots"])
        yield f"{found['questions']:,} questions, {found['questions_without_any']:,} of them without a candidate"
        yield f"{found['candidates']:,} candidates of {shots} shots from {_counted(found['sources'])}"
        threshold = found["settings"].get("correct_threshold")
        correct = f"{percent(found['positive_rate'])}% are correct"
        yield correct if threshold is None else f"{correct}, from accuracy {threshold:g} on"
    if found.get("without_probability"):
        yield f"{found['without_probability']:,} without a probability of the true answers"
    if "sequences" in found:
        yield f"{found['sequences']:,} sequences" + (f" of {_sizes(found['shots'])} shots" if "shots" in found else "")
    if found.get("questions_without_sequences"):
        yield f"{found['questions_without_sequences']:,} questions whose sequences are all left out"
    if found.get("pools_from_sequences"):
        yield f"pools made from the sequences, as no other file gives them: {found['pools_from_sequences']:,}"
    if "pool_sizes" in found:
        yield f"pools of {_sizes(found['pool_sizes'])}"
    if "rows" in found:
        width = f" of {found['width']}" if "width" in found else ""
        kind = f" ({found['dtype']})" if "dtype" in found else f" from the {found['from']}"
        zeros = found.get("rows_without_text") or found.get("rows_of_zeros")
        yield f"{found['rows']:,} rows{width}{kind}" + (f", {zeros:,} of them zeros" if zeros else "")
    for remark, count in found.get("notes", {}).items():
        yield f"{count:,} {remark}"


def _sizes(counts: Mapping[str, int]) -> str:
    """Sizes: "64", "2 and 3", "10 to 64"."""
    sizes = list(counts)
    return " and ".join(sizes) if len(sizes) < 3 else f"{sizes[0]} to {sizes[-1]}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
