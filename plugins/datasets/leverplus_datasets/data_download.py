"""`leverplus data download`: bring an official release onto this machine and check it."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

DATA = Path("data")


def download(
    release: Annotated[str, typer.Argument(metavar="okvqa|vqav2", help="The official release.")],
    folder: Annotated[Path | None, typer.Option(help="Folder of the JSON files; data/RELEASE by default.")] = None,
    images: Annotated[Path, typer.Option(help="Folder of the COCO photos.")] = DATA / "coco",
    photos: Annotated[bool, typer.Option("--photos", help="The photos, too (20 GB).")] = False,
    check: Annotated[bool, typer.Option("--check", help="Download nothing, only check what is there.")] = False,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Download the archives from here, under their official names.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Download the official files of a dataset that are absent, and check all: counts, ids, answers, photos.

    Exit code 2 unless all that was asked for is in place; photos count with --photos.
    """
    from leverplus_core import Bars, DataError
    from leverplus_datasets import release_copy
    from leverplus_datasets.releases import find_release

    known = find_release(release)
    folder = folder or DATA / known.name
    if check:
        findings = release_copy.check(known, folder, images)
    else:
        with Bars() as bars:
            findings = release_copy.download_release(known, folder, images, photos, mirror, bars)
    typer.echo(f"{known.title}: {known.page}", err=True)
    if json:
        typer.echo(json_.dumps([asdict(finding) for finding in findings], indent=1))
    for finding in [] if json else findings:
        typer.echo(f"{finding.state:8} {finding.what}: {finding.detail}")
    failed = [f for f in findings if f.state != "ok" and (photos or not f.what.endswith("photos"))]
    for finding in failed:
        typer.echo(f"{finding.what}: {finding.hint}", err=True)
    if failed:
        names = ", ".join(finding.what for finding in failed)
        raise DataError(f"{len(failed)} of {len(findings)} checks of {known.name} failed: {names}.", "See above.")
