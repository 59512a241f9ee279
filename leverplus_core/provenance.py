"""What a result ran on: Python, packages, machine and the state of the working tree. No user or host names."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "leverplus",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "statsmodels",
    "pydantic",
    "pillow",
    "sqlalchemy",
)


@cache
def describe_environment() -> dict[str, object]:
    """Versions and the kind of machine, JSON-able."""
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": versions,
    }


def source_hash(root: Path) -> str:
    """16 hex digits of sha256 over the Python sources of a package folder, or over one file."""
    digest = hashlib.sha256()
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
    for file in files:
        digest.update(file.relative_to(root.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def core_code() -> str:
    """The hash of core's own sources: what computed a stage, beside the parts."""
    return source_hash(Path(__file__).parent)


@cache
def describe_git() -> dict[str, object]:
    """Commit and cleanliness of the working tree that the command was given in; empty outside one."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
