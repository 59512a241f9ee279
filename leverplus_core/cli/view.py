"""`leverplus view`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, RegistryOpt


def view(
    registry: RegistryOpt = DEFAULT_REGISTRY,
    host: Annotated[str, typer.Option(help="Where to listen; all but loopback demands a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: any that is free.")] = 8420,
    token: Annotated[
        bool, typer.Option("--token", help="Demand a token on loopback, too: on a machine that others use.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser of this machine.")] = False,
) -> None:
    """Look at the registry in a browser: leaderboard, runs while they run, and every answer with its pictures.

    Nothing is written. It is seen from this machine alone: from elsewhere through `ssh -L 8420:localhost:8420 HOST`.
    """
    from leverplus_core.view.server import serve

    serve(registry, host, port, token, open_, output.say)
