"""`leverplus doctor`: what a run needs of this machine, and the fix of whatever is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, DEFAULT_WORK, JsonOpt, PluginOpt, RegistryOpt, WorkOpt
from leverplus_core.errors import LeverplusError
from leverplus_core.processes import usable_cpus

if TYPE_CHECKING:
    from rich.console import RenderableType

LEAST_SPACE, LEAST_MEMORY = 2e9, 2e9
"""Bytes below which a run of the demo world may not end."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and where something is wrong the trouble and its fix."""

    check: str
    found: str
    trouble: str = ""
    fix: str = ""


def doctor(
    registry: RegistryOpt = DEFAULT_REGISTRY,
    work: WorkOpt = DEFAULT_WORK,
    plugin: PluginOpt = None,
    gpu: Annotated[bool, typer.Option(help="Ask torch for a GPU; importing it takes seconds.")] = True,
    json: JsonOpt = False,
) -> None:
    """Look at packages, plugins, registry, caches, space, memory, GPU and threads, and say how to fix what is wrong.

    Ends with exit code 1 where something is.
    """
    findings = [
        *_looked("python", _python),
        *_looked("packages", _packages),
        *_looked("plugins", lambda: _plugins(plugin)),
        *_looked("registry", lambda: _registry(registry)),
        *_looked("caches", lambda: _caches(work)),
        *_looked("space", lambda: _space(work)),
        *_looked("memory", _memory),
        *(_looked("gpu", _gpu) if gpu else ()),
        *_looked("threads", _threads),
    ]
    output.table([asdict(finding) for finding in findings], _view, json)
    if any(finding.trouble for finding in findings):
        raise typer.Exit(1)


def _looked(check: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of a look; what it fails with is a finding too: a doctor goes on."""
    found: list[Finding] = []
    try:
        found += look()
    except LeverplusError as error:
        found.append(Finding(check, "not usable", error.what, error.hint))
    except Exception as error:
        text = f"it could not be looked at: {type(error).__name__}: {error}"
        found.append(Finding(check, "unknown", text, "Report it with what this command prints."))
    return found


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}"
    yield Finding("python", found)


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires("leverplus") or ()]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in needed:
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(one.name, "absent", f"leverplus needs {one}.", f"Run: pip install '{one}'")
            continue
        if not one.specifier.contains(version, prereleases=True):
            yield Finding(one.name, version, f"leverplus needs {one}.", f"Run: pip install '{one}'")
    own = importlib.metadata.version("leverplus")
    yield Finding("leverplus", f"{own}, which needs {len(needed)} packages")


def _plugins(files: list[Path] | None) -> Iterator[Finding]:
    from leverplus_core.cli.app import OWN_WORDS
    from leverplus_core.plugins.commands import command_entries
    from leverplus_core.plugins.hookspecs import API
    from leverplus_core.plugins.installed import installed
    from leverplus_core.plugins.manager import Catalog

    catalog = Catalog.load(files or [])
    entries = [*catalog.checked_entries(by_import=True), *command_entries(OWN_WORDS)[0]]
    good = [entry for entry in entries if entry.status == "ok"]
    distributions = {entry.distribution for entry in good}
    yield Finding("plugins", f"{len(good)} parts and commands of {', '.join(sorted(distributions))}; plugin API {API}")
    for entry in entries:
        status, _, why = entry.status.partition(": ")
        if status in ("ok", "disabled by LEVERPLUS_DISABLE"):
            continue
        fix = f"Ask its author, update it, or leave it out: LEVERPLUS_DISABLE={entry.distribution}"
        what = f"{entry.kind or 'plugin'} '{entry.name}' of {entry.distribution} {entry.version}".strip()
        yield Finding(what, status, why or status, fix)
    for line in installed("leverplus")[1]:
        yield Finding("distribution", "damaged", line, "")


def _registry(url: str) -> Iterator[Finding]:
    from leverplus_core.registry.database import sqlite_file_of
    from leverplus_core.registry.health import describe

    file = sqlite_file_of(url)
    if file is not None and not file.exists():
        yield Finding("registry", f"none yet at {file}; the first run makes one")
        return
    yield Finding("registry", describe(url))


def _caches(work: Path) -> Iterator[Finding]:
    from leverplus_core.pretrained import cache_folder

    hub = Path(os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"))
    for name, folder in (("artifacts", work), ("cache", cache_folder()), ("checkpoints", hub)):
        kinds = {path.name: _size(path) for path in _children(folder)}
        largest = sorted(kinds, key=lambda kind: -kinds[kind])[:3]
        parts = ", ".join(f"{kind} {output.size(kinds[kind])}" for kind in largest if kinds[kind])
        total = f"{output.size(sum(kinds.values()))} in {folder}" if folder.exists() else f"none yet in {folder}"
        yield Finding(name, total + (f" ({parts})" if parts else ""))


def _space(work: Path) -> Iterator[Finding]:
    folder = next(parent for parent in (work.absolute(), *work.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    low = free < LEAST_SPACE
    trouble = f"{folder} has less than {output.size(int(LEAST_SPACE))} left." if low else ""
    yield Finding("free space", f"{output.size(free)} at {folder}", trouble, "Free some, or name another --work." * low)
    if not os.access(folder, os.W_OK):
        yield Finding("folder", str(folder), "It cannot be written.", "Name another folder with --work.")


def _memory() -> Iterator[Finding]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        yield Finding("memory", "unknown on this system")
        return
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}
    free, total = (1024 * kilobytes.get(name, 0) for name in ("MemAvailable", "MemTotal"))
    low = free < LEAST_MEMORY
    trouble = f"less than {output.size(int(LEAST_MEMORY))} is free." if low else ""
    yield Finding("memory", f"{output.size(free)} free of {output.size(total)}", trouble, "End other programs." * low)


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        seen = shutil.which("nvidia-smi") is not None
        trouble = f"there is an Nvidia driver, but torch {torch.__version__} finds no GPU." if seen else ""
        yield Finding("gpu", "none: models run on the CPU", trouble, "Install a torch built for CUDA." * seen)
        return
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        yield Finding(f"gpu {i}", f"{torch.cuda.get_device_name(i)}, {output.size(free)} free of {output.size(total)}")


def _threads() -> Iterator[Finding]:
    usable = usable_cpus()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    found = f"{usable} CPUs; OMP_NUM_THREADS is {asked or 'not set'}"
    if asked.isdigit() and int(asked) > usable:
        yield Finding("threads", found, f"{asked} threads share {usable} CPUs.", f"Set OMP_NUM_THREADS={usable}")
    else:
        yield Finding("threads", found)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    """Bytes of a file, or of the files of a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return _file_size(path)
    return sum(_file_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone meanwhile
        return 0


def _view(findings: Sequence[dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(no_wrap=False)
    drawn.add_column(overflow="fold")
    for row in findings:
        text = Text(row["found"])
        if row["trouble"]:
            text.append(f"\nTROUBLE: {row['trouble']}" + (f"\n{row['fix']}" if row["fix"] else ""), style="bold")
        drawn.add_row(Text(row["check"]), text)
    wrong = sum(bool(row["trouble"]) for row in findings)
    return Group(drawn, Text(""), Text(f"Troubles: {wrong}." if wrong else "All well."))
