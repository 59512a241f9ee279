"""`leverplus candidates ...`."""

from pathlib import Path
from typing import Annotated

import typer

OutOpt = Annotated[Path, typer.Option("--out", "-o", metavar="OUT.jsonl", help="The file to write.")]
