"""The figures as Markdown tables, and as the page `docs/performance.md`."""

from __future__ import annotations

import io
import platform
import re
import statistics
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from leverplus_core.io import write_bytes
from leverplus_core.pretrained import describe_device
from leverplus_core.provenance import describe_environment, describe_git
from tools.bench.arm import HF_BATCHED, NAIVE
from tools.bench.comparison import TOLERANCE, Row
from tools.bench.scaling import Curve

ANSWER_COLUMNS = ("arm", "beams", "answers", "answers/s", "x hf", "ceiling", "MB")
PROFILE_COLUMNS = ("kernels/p", "busy", "first")
COLUMNS = ("arm", "prompts/s", "+-%", "x naive", "x hf", "ceiling", "img/p", "tok/p", "MB", "diff")
ON_A_GPU = "\n## On a GPU\n"
"""The heading of the half that a run on a GPU writes."""
ORDER = {"append": "appended", "prepend": "prepended"}
LEGEND = (
    "prompts/s: median over the rounds; +-%: half the range over the median. x naive, x hf: prompts/s over those of "
    "naive and of hf-batched. ceiling: the share of this machine's measured matmul rate that the necessary arithmetic "
    "amounts to. img/p, tok/p: images encoded and tokens computed (with padding) per prompt, counted by hooks on the "
    "model. MB: peak resident memory of the arm's process, on a GPU that of its tensors. kernels/p: what the GPU was "
    "asked to run per prompt; busy: the share of the time in which it ran; first: seconds of the first round over "
    "those of the others. arithmetic allows: the arithmetic of all prompts, each computed whole, over the necessary; "
    "an arm gains more than that where it also computes faster than hf-batched does. diff: largest difference of a "
    "log-probability from naive's, "
    f"in float32 (checked: at most {TOLERANCE['float32']:g}) where there is room for it, else in bfloat16 (checked: at "
    f"most {TOLERANCE['bfloat16']:g}).",
    "* An arm timed on a sample of the prompts, each number of shots in its share: its cost per prompt does not "
    "depend on the others.",
)


def tables(tables: Sequence[Sequence[Row]], curves: Sequence[Curve]) -> str:
    """The tables alone."""
    lines = []
    for rows in tables:
        for order in ORDER:
            own = [row for row in rows if row.order == order]
            title, *bound = _title(own[0])
            profiled = any(row.profiled for row in own)
            columns = (*COLUMNS, *PROFILE_COLUMNS) if profiled else COLUMNS
            cells = [(*_cells(row), *(_profile(row) if profiled else ())) for row in own]
            lines += [f"## {title}", "", *bound, "", *_pipes(columns, cells), ""]
        if found := _answers(rows):
            heading = "Answers of five tokens after one to four demonstrations, nested, appended:"
            lines += [heading, "", *_pipes(ANSWER_COLUMNS, found), ""]
    for curve in curves:
        heading = f"{curve.about}: seconds grow as size to the {curve.exponent:.2f}."
        lines += [heading, "", *_pipes(CURVE_COLUMNS, _points(curve)), ""]
    return "\n".join(lines)


def write(path: Path, rows: Sequence[Sequence[Row]], curves: Sequence[Curve]) -> None:
    """Write the page, and beside it the plot of the curves.

    A page has two halves, runs on a CPU and, from `ON_A_GPU` on, those on a GPU: a run writes its own half alone.
    """
    before, mark, kept = (path.read_text(encoding="utf-8") if path.is_file() else "").partition(ON_A_GPU)
    if any(row.case.device == "cuda" for table in rows for row in table):
        made = ["", *_head("cuda"), re.sub("(?m)^## ", "### ", tables(rows, []))]
        write_bytes(path, (before + ON_A_GPU + "\n".join(made)).encode())
        return
    intro = [
        "# Performance",
        "",
        *_head("cpu"),
        "The work is the InfoScore beam search of a question set, from image files to stored rows, with empty caches.",
        "`naive` is what the Lever-Plus research code does: each prompt's image files are read, preprocessed and run",
        "from pixels, four prompts at a time, logits everywhere. `hf-batched` is what a careful user of transformers",
        "writes: batches of similar length under a token budget, logits at the answer; `hf-image-cache` encodes each",
        "image once as well (of a sample, each prompt has its share of the search's images). `full` is leverplus,",
        "`no-SWITCH` leverplus with one setting of its engine off. Arms take turns, each in its own process; on a GPU",
        "all are in one.",
        "",
        "`demo` is the packaged checkpoint. `mid` and `3b` have random weights and see photos of 640 x 480 (391 visual",
        "tokens); `3b` is Qwen2.5-VL-3B's true geometry, and `mid` keeps its ratio of vision to language arithmetic.",
        "",
        *(line for text in LEGEND for line in [*textwrap.wrap(text, 118), ""]),
        "",
    ]
    plot = path.with_suffix(".svg")
    shown = ["## How cost grows", "", "Demo geometry, `full`, appended, medians of three runs.", ""]
    shown += [f"![cost against size]({plot.name})", ""]
    if curves:
        write_bytes(plot, _plot(curves))
    text = "\n".join([*intro, tables(rows, []), *(shown if curves else []), tables([], curves)])
    write_bytes(path, (text + mark + kept).encode())


def _head(device: str) -> list[str]:
    return [f"Written by `python -m tools.bench {' '.join(sys.argv[1:])}`. {_machine(device)}", ""]


def _title(row: Row) -> list[str]:
    """The case, and what arithmetic allows."""
    case, search = row.case, row.search
    many = f"{case.questions} question{'s' if case.questions > 1 else ''}"
    lines = [
        f"{case.geometry}, {ORDER[row.order]}: {many}, pools of {case.pool}, {case.num_beams} beams, "
        f"{case.shots} shots, {case.dtype}{', CPU time' if case.cpu_time else ''}"
    ]
    if search is not None:
        least = search.necessary
        lines.append(
            f"{search.prompts:,} prompts; necessary: {least.images:,} images and {least.tokens:,} tokens, "
            f"{least.flops / 1e9:,.0f} GFLOP;"
        )
        lines.append(f"arithmetic allows {row.bound:.2f} x hf-batched; matmul ceiling {row.ceiling / 1e9:,.0f} GFLOP/s")
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    seconds, first = sorted(run.seconds for run in row.runs), row.runs[0]
    spread = 50 * (seconds[-1] - seconds[0]) / statistics.median(seconds)
    diff = row.diffs.get("float32", row.diffs.get("bfloat16"))
    return (
        row.arm + ("*" if row.sampled else ""),
        _number(row.rates[row.arm]),
        f"{spread:.0f}" if len(seconds) > 1 else "",
        _number(row.over(NAIVE)),
        _number(row.over(HF_BATCHED)),
        "" if row.ceiling_share is None else f"{100 * row.ceiling_share:.1f}%",
        _number(first.images / first.prompts),
        _number(first.tokens / first.prompts),
        f"{max(run.peak_mb for run in row.runs):,.0f}",
        "" if diff is None else f"{diff:.0e}" if diff else "0",
    )


def _profile(row: Row) -> tuple[str, str, str]:
    """Kernels a prompt, the share of the run's seconds in which a GPU ran them, and the first run over the others."""
    found, (first, *others) = row.profiled, [run.seconds for run in row.runs]
    slower = _number(first / statistics.median(others)) if others else ""
    if found is None:
        return "", "", slower
    return _number(found.launches / found.prompts), f"{100 * found.busy / found.seconds:.0f}%", slower


def _answers(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    stock = {beams: a.prompts / a.seconds for row in rows if row.arm == HF_BATCHED for beams, a in row.answered.items()}
    return [
        (
            row.arm, str(beams), str(a.prompts), _number(a.prompts / a.seconds),
            _number(a.prompts / a.seconds / stock[beams] if beams in stock else None),
            f"{100 * row.answer_share(beams):.1f}%", f"{a.peak_mb:,.0f}",
        )
        for row in rows
        for beams, a in row.answered.items()
    ]  # fmt: skip


CURVE_COLUMNS = ("size", "prompts", "seconds", "ms per prompt", "images encoded", "tokens computed", "peak MB")


def _points(curve: Curve) -> list[tuple[str, ...]]:
    return [
        (
            f"{p.size:,}", f"{p.prompts:,}", f"{p.seconds:.2f}", f"{1000 * p.seconds / p.prompts:.3f}",
            f"{p.images:,}", f"{p.tokens:,}", f"{p.peak_mb:,.0f}",
        )
        for p in curve.points
    ]  # fmt: skip


def _number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def _pipes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|" + "|".join("---" if n == 0 else "---:" for n in range(len(columns))) + "|"
    return [f"| {' | '.join(columns)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def _machine(device: str) -> str:
    seen = describe_environment()
    packages = seen["packages"]
    assert isinstance(packages, dict)
    commit = str(describe_git().get("commit", ""))[:8]
    gpu = f"one {describe_device(torch.device(device))} and " if device == "cuda" else ""
    return (
        f"It ran on {gpu}{seen['cpus']} CPUs ({_processor()}), {seen['system']}, Python {seen['python']}, "
        f"torch {packages['torch']}, transformers {packages['transformers']}{f', commit {commit}' if commit else ''}."
    )


def _processor() -> str:
    """The processor's name and its bfloat16 instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    metadata = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    fast = [name for name in ("amx_bf16", "avx512_bf16") if name in metadata.get("flags", "").split()]
    return ", ".join([metadata.get("model name", "unknown"), *fast])


def _plot(curves: Sequence[Curve]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(curves), 2.8), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        axes.loglog([p.size for p in curve.points], [p.seconds for p in curve.points], marker="o")
        axes.set_title(f"{curve.name} (exponent {curve.exponent:.2f})", fontsize=9)
        axes.set_ylabel("seconds")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
