"""Hostile texts in every field of a registry, a recipe and a file of candidates, through every outlet.

An outlet is a command with a way to write: tables, JSON, CSV, Markdown, HTML with pictures, error lines, on a standard
output that is UTF-8, ASCII or cp1252. None may end in a trace, none may let through what a terminal, a page or a
spreadsheet acts upon.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import sys
import traceback
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from leverplus_core.cli import main
from leverplus_core.records import Candidate, Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from tools.soak.topic import Case, Outcome, Topic

TEXTS: Mapping[str, str] = {
    "escape sequences": "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m",
    "C1 controls": "\x9b31mred\x9d0;owned\x9c\x85",
    "overwriting": "good\rbad \x08\x08\x08\x7f",
    "NUL": "a\x00b",
    "bidi controls": "user\u202e\u2066// admin\u2069\u2066\u200f",
    "zero width": "mi\u200bx\u200ded\u2060\ufeff\xad",
    "tags and noncharacters": "x\U000e0041\U000e007f\ufffe\uffff\U0001ffff",
    "line separators": "one\u2028two\u2029three\n\nfour\x0b\x0cfive\x1c",
    "rich markup": "[red]x[/red] [/] [link=https://e.org]y[/link] :bomb:",
    "Markdown": "[x](javascript:alert(1)) ![y](https://e.org/z) <https://e.org> # h | a | b\n\n[z]: javascript:a",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='alert(1)",
    "SVG": "</text></svg><svg onload=alert(1)><style>@import url(https://e.org)</style>",
    "TeX": "$\\bad{$ \\frac{1}{ $$x_y^z$",
    "private label": "_nolegend_",
    "formula": "=HYPERLINK(\"https://e.org\",1)",
    "formula +": "+1+cmd|' /C calc'!A0",
    "formula -": "-2+3+cmd|' /C calc'!A0",
    "formula @": "@SUM(1)",
    "formula tab": "\t=1+1",
    "template": "{{ 7 * 7 }} {% raw %} {0} {name.__class__} %s %(x)s ${HOME}",
    "long": "word " * 2000,
    "long word": "w" * 10_000,
    "emoji": "👩‍👩‍👧 🏳️‍🌈 é 模型 می‌خواهم हिन्दी",
    "marks": "Z" + "\u0310\u0338\u0361" * 40,
    "quotes": "'\"`\\\\'\\x1b",
    "surrogate": "half \ud800 of a pair \udcff",
}  # fmt: skip
ENCODINGS = ("utf-8", "ascii", "cp1252")
ALLOWED = {"\n", "\t"}


def topic(short: bool) -> Topic:
    """Each text of TEXTS in all fields, then mixtures of their characters; the short form has one mixture."""
    if short:
        return Topic("Texts", [_case("mixture 0", 0, _mixture(0), ENCODINGS[1:2])], _summary)
    cases = [_case(name, i, [text], ENCODINGS[i % 3 : i % 3 + 1]) for i, (name, text) in enumerate(TEXTS.items())]
    cases += [_case(f"mixture {number}", number, _mixture(number)) for number in range(2)]
    return Topic("Texts", cases, _summary)


def _case(name: str, number: int, texts: Sequence[str], encodings: Sequence[str] = ENCODINGS) -> Case:
    return Case(name, lambda folder: _trial(folder, number, texts, encodings))


def _mixture(number: int) -> list[str]:
    """All texts, in another order, each with another behind it: a field has one that no other field has."""
    chance = random.Random(f"mixture {number}")
    texts = [text for text in TEXTS.values() if len(text) < 5000]
    return [f"{a}{b}" for a, b in zip(chance.sample(texts, len(texts)), chance.sample(texts, len(texts)), strict=True)]


def _trial(folder: Path, number: int, texts: Sequence[str], encodings: Sequence[str]) -> Outcome:
    faults: list[str] = []
    outlets = 0
    with contextlib.chdir(folder):
        fields = _Fields(texts)
        _write_registry(fields)
        (folder / "candidates.jsonl").write_text(_candidates(fields), encoding="utf-8", errors="surrogatepass")
        (folder / "recipe.yaml").write_text(_recipe(fields), encoding="utf-8", errors="surrogatepass")
        for place, (arguments, check, code) in enumerate(_outlets(fields)):
            if check in (_page, _pictures) and (number + place) % 2 and len(texts) == 1:
                continue  # pictures take longer than all the rest
            for encoding in encodings if check not in (_page, _pictures) else encodings[:1]:
                outlets += 1
                found = _call(arguments, encoding)
                where = f"{arguments[0]} {' '.join(a for a in arguments[1:] if a.startswith('-'))} ({encoding})"
                faults += [f"{where}: {fault}" for fault in (*_common(*found, code, encoding), *check(found[1]))]
    return Outcome(faults=[ascii(fault)[1:-1][:300] for fault in faults[:20]], figures={"outlets": outlets})


class _Fields:
    """The next hostile text for a field. What UTF-8 cannot hold is no text of a database; it comes in arguments."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.raw = list(texts)
        self._texts = [text.encode("utf-8", "replace").decode() for text in texts]
        self._next = 0

    def __call__(self) -> str:
        self._next += 1
        return self._texts[self._next % len(self._texts)]


def _write_registry(text: _Fields) -> None:
    methods, dataset, model = [f"m{number} {text()}".replace(":", "") for number in range(2)], text(), text()
    questions, images = [[f"{kind}{number} {text()}" for number in range(8)] for kind in ("q", "i")]
    with Registry("sqlite:///r.db") as registry:
        for run in ("a", "b"):
            recipe = {"name": text(), "task": "vqa", "dataset": {"name": "table"}, "note": text()}
            recipe |= {"reward": {"name": text()}, "evaluation": {"shots": [1, 2]}, text(): {text(): text()}}
            registry.begin_run(
                RunRecord(
                    run, f"{run} {text()}", f"f-{run}", dataset, model, 0, recipe=recipe, note=text(),
                    dataset_fingerprint="w", sweep="sweep", arm={text(): f"{run} {text()}"}, git={"commit": text()},
                    parts=[{"kind": "reward", "name": text(), "distribution": text(), "version": text(), "code": ""}],
                )
            )  # fmt: skip
            for method in (*methods, "random", "oracle"):
                for shots in (1, 2):
                    rows = [
                        (i, Prediction(method, shots, q, image, (text(), text()), text(), text(), (i % 3) / 2))
                        for i, (q, image) in enumerate(zip(questions, images, strict=True))
                    ]
                    registry.record_cell_predictions(run, method, shots, rows, [4, 8])
            registry.record_evaluation(run, text(), "validation", list(zip(questions, images, strict=True)), methods)
            registry.record_methods(run, dict.fromkeys((*methods, "random"), 7))
            cost = {"cost": {"seconds": 2.0, "prompts": 10}, "shortfall": {text(): 3}}
            for stage in ("balance", text(), "evaluate"):
                balanced = {"before": BALANCED, "after": BALANCED} if stage == "balance" else {}
                registry.record_stage(run, stage, text(), "done", 1.0, text(), reused=False, metadata=cost | balanced)
            registry.record_curve(run, text(), [(e, {"loss": 1 / e, "accuracy": e / 4, text(): 1.0}) for e in (1, 2)])
            registry.finish_run(run, "done" if run == "a" else "failed")


BALANCED = {"questions": 60, "candidates": 900, "candidates_per_question": 15.0, "positive_rate": 0.6}


def _candidates(text: _Fields) -> str:
    rows = [
        Candidate(text(), (text(), text()), text(), text(), text(), accuracy=float(right), correct=right)
        for right in (True, False)
    ]
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def _recipe(text: _Fields) -> str:
    return json.dumps({"extends": "demo", "name": text(), "note": text(), text(): text()}, ensure_ascii=False)


Check = Callable[[str], Sequence[str]]


def _outlets(text: _Fields) -> list[tuple[list[str], Check, Sequence[int]]]:
    """(arguments, what standard output must be besides harmless, the exit codes that may be)."""
    store = ["--registry", "sqlite:///r.db"]
    good, bad, either = (0,), (2,), (0, 2)
    with Registry("sqlite:///r.db") as registry:
        cells = registry.cells(["a"])
        question = registry.cell_predictions("a", cells[0]["method"], 1)[0][1].question_id
        method = next(cell["method"] for cell in cells if cell["method"].startswith("m1"))
    argument = _argument(text.raw)
    odd = f"SELECT 1e999 AS x, -1e999 AS x, name AS n, note AS n, recipe, 'e' AS \"{_quoted(text())}\" FROM runs"
    return [
        (["leaderboard", *store], _plain, good),
        (["leaderboard", "--baseline", "random", "--group", "method", *store], _plain, good),
        (["leaderboard", "--json", *store], _json, good),
        (["leaderboard", "--csv", *store], _csv, good),
        (["leaderboard", "--md", *store], _markdown, good),
        (["compare", f"a:{method}", "b:random", *store], _plain, good),
        (["compare", "a", "b", "--json", *store], _json, good),
        (["headroom", f"a:{method}", *store], _plain, good),
        (["power", "a", "--effect", "1", "--method", method, "--baseline", "random", *store], _plain, good),
        (["show", "a", "--question", question, *store], _plain, good),
        (["show", "a", "--question", question, "--json", *store], _json, good),
        (["report", "a", "b", "--method", method, "--baseline", "a:random", *store], _markdown, good),
        (["report", "a", "--method", method, "--baseline", "random", "--json", *store], _json, good),
        (["report", "a", "b", "--method", method, "--baseline", "a:random", "-o", "r.html", *store], _page, good),
        (["report", "a", "b", "--method", method, "--baseline", "a:random", "-o", "r.md", *store], _pictures, good),
        (["audit", "a", "--asked", *store], _plain, good),
        (["sql", odd, *store], _plain, good),
        (["sql", odd, "--json", *store], _odd_json, good),
        (
            ["sql", "SELECT name, method, demonstrations, prediction FROM predictions_with_questions LIMIT 9", *store],
            _plain,
            good,
        ),
        (["candidates", "inspect", "candidates.jsonl"], _plain, good),
        (["candidates", "inspect", "candidates.jsonl", "--json"], _json, good),
        # What is not there is quoted in an error line.
        (["show", "a", "--question", argument, *store], _nothing, bad),
        (["show", argument, "--question", question, *store], _nothing, bad),
        (["leaderboard", argument, *store], _nothing, bad),
        (["leaderboard", "--dataset", argument, *store], _nothing, bad),
        (["leaderboard", "--sort", argument or "x", *store], _nothing, bad),
        (["compare", argument, f"b:{argument}", *store], _nothing, bad),
        (["report", argument, *store], _nothing, bad),
        (["report", "a", "--lang", argument, *store], _nothing, bad),
        (["sql", argument, *store], _nothing, bad),
        (["validate", "recipe.yaml"], _nothing, bad),
        (["validate", argument], _nothing, bad),
        (["validate", "demo", "--set", argument], _nothing, bad),
        (
            ["validate", "demo", "--set", f"name={json.dumps(argument)}", "--set", f"note={json.dumps(argument)}"],
            _any,
            either,
        ),
        (["plan", "demo", "--set", f"model.path={json.dumps(argument)}"], _any, either),
        ([f"x{argument}"], _nothing, bad),
        (["leaderboard", f"--{argument}"], _nothing, bad),
        (["leaderboard", "--shots", argument], _nothing, bad),
    ]


def _argument(texts: Sequence[str]) -> str:
    """As a shell passes it: without NUL, and bytes that are not UTF-8 as surrogates."""
    return "".join(texts)[:20_000].replace("\0", "").encode("utf-8", "replace").decode() + "\udcff"


def _quoted(text: str) -> str:
    return text.replace('"', '""').replace("\0", "")


def _call(arguments: list[str], encoding: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command; a trace is in the latter, as it would be."""
    streams = [
        io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors) for errors in ("strict", "backslashreplace")
    ]
    before, code = sys.argv, 0
    sys.argv = ["leverplus", *arguments]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except Exception:
            code = 1
            traceback.print_exc()
        finally:
            sys.argv = before
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.detach().getvalue().decode(encoding))
    return code, texts[0], texts[1]


def _common(code: int, out: str, err: str, codes: Sequence[int], encoding: str) -> list[str]:
    """What holds for every outlet."""
    faults = [f"exit code {code}: {err.strip().splitlines()[-1:]}"] if code not in codes else []
    faults += [f"a trace: {err.strip().splitlines()[-1]}"] if "Traceback" in err else []
    if code == 2 and len(err.splitlines()) != 1:
        faults.append(f"{len(err.splitlines())} error lines")
    # What ASCII lacks is up to ten characters there.
    if (longest := max(map(len, err.splitlines()), default=0)) > (2000 if encoding == "utf-8" else 10_000):
        faults.append(f"a line of {longest} characters")
    for name, text in (("standard output", out), ("standard error", err)):
        if raw := harmful(text):
            faults.append(f"{raw[0]!a} in {name}")
    return faults


def harmful(text: str) -> list[str]:
    """The characters of `text` that a terminal acts on or hides: by their Unicode category, but for joiners of emoji
    and of Persian, and for marks of numbers that are seen."""
    joined = {text[i] for i in range(1, len(text)) if text[i] in "\u200c\u200d" and text[i - 1] > "\xff"}
    return [c for c in set(text) - ALLOWED - joined if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def _plain(out: str) -> Sequence[str]:
    return [] if out else ["nothing on standard output"]


def _nothing(out: str) -> Sequence[str]:
    return ["something on standard output"] if out else []


def _json(out: str) -> Sequence[str]:
    try:
        json.loads(out, parse_constant=lambda word: 1 / 0)
    except (ValueError, ZeroDivisionError) as error:
        return [f"no JSON: {error}"]
    return []


def _any(out: str) -> Sequence[str]:
    return []


def _odd_json(out: str) -> Sequence[str]:
    if faults := _json(out):
        return faults
    first = json.loads(out)[0]
    return [] if list(first)[:4] == ["x", "x:2", "n", "n:2"] and first["x"] is None else [f"columns {list(first)[:4]}"]


def _csv(out: str) -> Sequence[str]:
    rows = list(csv.reader(io.StringIO(out)))
    odd = [
        cell
        for row in rows
        for cell in row
        if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and cell[1:] and not _number(cell)
    ]
    return [f"a formula: {odd[0]}"] if odd else [] if len(rows) > 8 else ["no rows"]


def _number(cell: str) -> bool:
    try:
        return bool(float(cell)) or True
    except ValueError:
        return False


def _markdown(out: str) -> Sequence[str]:
    """No link, HTML or picture but our own."""
    if not out:
        return ["nothing on standard output"]
    tokens = list(_tokens(MarkdownIt("commonmark", {"html": True}).enable("table").parse(out)))
    odd = [t.type for t in tokens if t.type in ("link_open", "html_inline", "fence", "code_block", "code_inline")]
    pictures = [str(t.attrGet("src")) for t in tokens if t.type == "image"]
    odd += [address for address in pictures if not address.startswith("r.md.files/")]
    odd += [
        t.content for t in tokens if t.type == "html_block" and not t.content.startswith(("<details", "</details>"))
    ]
    return [f"live in Markdown: {odd[0]}"] if odd else []


def _tokens(tokens: Sequence[Token]) -> list[Token]:
    return [one for token in tokens for one in (token, *_tokens(token.children or []))]


def _pictures(out: str) -> Sequence[str]:
    """The Markdown file, and its SVG files: well-formed, without scripts and links."""
    if not Path("r.md").exists():
        return ["no file"]
    faults = [*_nothing(out), *_markdown(Path("r.md").read_text(encoding="utf-8"))]
    files = list(Path("r.md.files").iterdir())
    for file in files:
        try:
            faults += _active(
                [(node.tag.rpartition("}")[2], list(node.attrib.items())) for node in ET.parse(file).iter()]
            )
        except ET.ParseError as error:
            faults.append(f"{file.name} is no XML: {error}")
        if raw := harmful(file.read_text(encoding="utf-8")):
            faults.append(f"{raw[0]!r} in {file.name}")
    return faults if files else [*faults, "no pictures"]


def _page(out: str) -> Sequence[str]:
    if not Path("r.html").exists():
        return ["no file"]
    text = Path("r.html").read_text(encoding="utf-8")
    faults = [*_nothing(out), *(f"{raw!r} in r.html" for raw in harmful(text)[:1])]
    own = resources.files("leverplus_core.report").joinpath("templates/questions.js").read_text(encoding="utf-8")
    parser = _Tags()
    parser.feed(text.replace(f"<script>{own}</script>", "", 1))
    # The data of the page's own script, once, and pictures within the file: all else that is active is a fault.
    data = ("script", [("type", "application/json"), ("id", "questions-data")])
    if data in parser.seen:
        parser.seen.remove(data)
    tags = [seen for seen in parser.seen if not (seen[0] == "img" and _is_inlined(dict(seen[1])))]
    return [*faults, *_active(tags)] if "Content-Security-Policy" in text else [*faults, "no policy"]


def _is_inlined(attributes: Mapping[str, str | None]) -> bool:
    """Whether an image is in the file itself, with a text and nothing else."""
    return (attributes.get("src") or "").startswith("data:image/webp;base64,") and attributes.keys() <= {"src", "alt"}


class _Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.seen.append((tag, attrs))


def _active(tags: Sequence[tuple[str, Sequence[tuple[str, str | None]]]]) -> list[str]:
    odd = [
        f"<{tag}>" for tag, _ in tags if tag in ("script", "img", "image", "iframe", "object", "link", "foreignObject")
    ]
    for tag, attributes in tags:
        for name, value in attributes:
            address = name.rpartition("}")[2].rpartition(":")[2] in ("href", "src") and not str(value).startswith("#")
            odd += [f"<{tag} {name}={value}>"] if name.lower().startswith("on") or address else []
    return [f"live in the page: {one}" for one in odd[:3]]


def _summary(found: Mapping[str, Outcome]) -> str:
    outlets = sum(outcome.figures["outlets"] for outcome in found.values())
    return (
        f"{len(TEXTS)} kinds of hostile text (escape sequences, bidi controls, markup, formulas, templates, halves of "
        "surrogate pairs, 10,000 characters), one by one and mixed, in every field of a registry, in a recipe, a file "
        f"of candidates and the arguments of commands: {outlets:,} calls of commands, on a standard output of "
        f"{', '.join(ENCODINGS)}. "
        "Checked: exit code, no trace, one error line, no control character, valid JSON and XML, no formula in CSV, no "
        "link, script or outside address in Markdown, HTML and pictures."
    )
