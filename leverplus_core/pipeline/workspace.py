"""The folder of artifacts: a folder per stage and fingerprint, whole or absent.

A stage writes into its own folder, named by the stage and its fingerprint; `provenance.json` is written last, so that a
folder which has one is finished. Runs share equal stages.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leverplus_core.io import SCRATCH, read_json, storage_errors, write_json

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class StageFolder:
    """Where one stage of one fingerprint keeps its files."""

    path: Path

    @property
    def done(self) -> bool:
        """Whether the stage has finished here."""
        return os.path.exists(self.path / PROVENANCE)

    def make(self) -> Path:
        """The folder, made where it is absent, without the halves of files that a kill left in it.

        For the process that alone writes into it. Raises StorageError where it cannot be made."""
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for half in self.path.rglob(SCRATCH):
                half.unlink(missing_ok=True)
        return self.path

    def provenance(self) -> dict[str, Any]:
        """What was written when the stage finished. Raises DataError for a file that is damaged."""
        return read_json(self.path / PROVENANCE)

    def finish(self, provenance: Mapping[str, object]) -> None:
        """Write the provenance: from now on the folder is finished."""
        write_json(self.path / PROVENANCE, dict(provenance))

    def reopen(self) -> None:
        """Remove the files of a finished stage, so that it is computed again."""
        if self.path.is_dir():
            with storage_errors(self.path):
                for file in sorted(self.path.iterdir(), key=lambda file: file.name != PROVENANCE):
                    if file.is_file():
                        file.unlink()
                    else:
                        shutil.rmtree(file)


@dataclass(frozen=True)
class Workspace:
    """The folder of artifacts (`--work`, LEVERPLUS_WORK, default `.leverplus` here)."""

    root: Path

    def stage(self, name: str, fingerprint: str) -> StageFolder:
        """The folder of a stage, whether or not it is there; nothing is made."""
        return StageFolder(self.root / "stages" / f"{name}-{fingerprint}")
