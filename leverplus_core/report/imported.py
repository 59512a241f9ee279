"""What an imported folder holds and what was left out, drawn for 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.report.tables import percent


def imported_view(summary: Mapping[str, Any]) -> RenderableType:
    """`interchange.import_*`'s summary: what each file gave, then what was not kept and why."""
    given = Table(box=None, pad_edge=False, show_header=False)
    given.add_column(style="dim")
    given.add_column(overflow="fold")
    for name, lines in (("rl-data", _rl_data), ("beams", _beams), ("embeddings", _embeddings), ("features", _features)):
        if name in summary:
            for i, line in enumerate(lines(summary[name])):
                given.add_row("" if i else name, Text(line))
    parts: list[RenderableType] = [Text(summary["folder"], style="bold"), given]
    left = {name: summary[name]["not_kept"] for name in ("rl-data", "beams") if name in summary}
    if any(left.values()):
        table = Table(box=None, pad_edge=False)
        table.add_column("not kept")
        table.add_column("", justify="right")
        table.add_column("such as", overflow="fold")
        for reasons in left.values():
            for reason, found in reasons.items():
                table.add_row(Text(reason), f"{found['count']:,}", Text(found["examples"][0]))
        parts += [Text(""), table]
    return Group(*parts)


def _rl_data(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield metadata["file"]
    empty = metadata["questions_without_candidates"]
    yield f"{metadata['questions']:,} questions" + (f", {empty:,} of them without a candidate" if empty else "")
    shots, sources = _listed(metadata["shots"]), _counted(metadata["sources"])
    yield f"{metadata['candidates']:,} candidates of {shots} shots from {sources}"
    at, others = metadata["correct_threshold"], metadata["vqa_correct_says_otherwise"]
    says = f"; vqa_correct says otherwise of {others:,}" if others else ""
    yield f"{percent(metadata['positive_rate'])}% are correct, from accuracy {at:g} on{says}"
    if metadata["without_probability"]:
        yield f"{metadata['without_probability']:,} without a probability of the true answers"
    yield f"evaluated by {_counted(metadata['eval_modes'])}"
    made = metadata["pools_from_candidates"]
    pools = f"pools of {_listed(metadata['pool_sizes'])}"
    yield pools + (f"; made from the candidates, as the file has none: {made:,}" if made else "")


def _beams(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield metadata["file"]
    empty = metadata["questions_without_sequences"]
    yield f"{metadata['questions']:,} questions" + (f", {empty:,} of them without a sequence" if empty else "")
    yield f"{metadata['sequences']:,} sequences of {_listed(metadata['shots'])} shots"
    if metadata["pools_from_sequences"]:
        yield f"pools made from the sequences, as no rl-data gives them: {metadata['pools_from_sequences']:,}"


def _embeddings(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield metadata["file"]
    yield f"{metadata['rows']:,} rows of {metadata['width']} ({metadata['dtype']})"


def _features(metadata: Mapping[str, Any]) -> Iterator[str]:
    bare = metadata.get("rows_without_text", 0)
    said = f", {bare:,} of them without a text: rows of zeros" if bare else ""
    yield f"{metadata['rows']:,} rows from the {metadata['from']}{said}"


def _listed(counts: Mapping[str, int]) -> str:
    """Sizes: "64", "2 and 3", "10 to 64"."""
    sizes = list(counts)
    return " and ".join(sizes) if len(sizes) < 3 else f"{sizes[0]} to {sizes[-1]}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
