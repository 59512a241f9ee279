"""The folder of artifacts: a folder per stage and fingerprint, whole or absent.

A stage writes into its own folder, named by the stage and its fingerprint; `provenance.json` is written last, so that a
folder which has one is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leverplus_core.io import storage_errors, write_json

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class StageFolder:
    """Where one stage of one fingerprint keeps its files."""

    path: Path

    @property
    def done(self) -> bool:
        return (self.path / PROVENANCE).exists()

    def finish(self, provenance: Mapping[str, object]) -> None:
        write_json(self.path / PROVENANCE, dict(provenance))


@dataclass(frozen=True)
class Workspace:
    """The folder of artefacts (`--work`, LEVERPLUS_WORK, default `.leverplus` here); runs share equal stages."""

    root: Path

    def stage(self, name: str, stage_fingerprint: str) -> StageFolder:
        path = self.root / "stages" / f"{name}-{stage_fingerprint}"
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return StageFolder(path)
