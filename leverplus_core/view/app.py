"""The addresses of the viewer: each opens the registry to be read, computes what its page shows, and draws it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from html import escape
from textwrap import wrap
from typing import Any

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from leverplus_core.errors import DataError, LeverplusError, RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.pages import templates
from leverplus_core.report.tables import interval, percent, points, shots_text
from leverplus_core.report.thumbnail import MEDIA_TYPE, thumbnail
from leverplus_core.text import one_line, shown
from leverplus_core.view import boards, questions
from leverplus_core.view.query import Query, link
from leverplus_core.view.questions import SIDES

KEPT = 1000
"""Pictures in memory; some kilobytes each."""
BROKEN = (
    "Either the registry holds what leverplus has not written, or this is a mistake of leverplus; its trace is on the "
    "terminal of `leverplus view`. Other pages are not touched by it."
)
Page = Callable[[Registry, Query], Mapping[str, Any]]


def create_app(url: str) -> Starlette:
    """The application over the registry at a database URL, without the checks of `gate.Gate`. Raises RegistryError
    where the registry cannot be read."""
    environment = _environment(url)

    def page(template: str, compute: Page) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            return _answer(url, environment, template, compute, request)

        return answer

    def picture(request: Request) -> Response:
        return _picture(url, Query.of(request.query_params.multi_items()), request.headers.get("if-none-match"))

    def absent(request: Request, _: Exception) -> Response:
        text = environment.get_template("error.html").render(title="no such page", what="There is no such page.")
        return HTMLResponse(text, 404)

    def broken(request: Request, error: Exception) -> Response:
        """The server raises the error again, so that its trace is on the terminal."""
        why = f"{type(error).__name__}: {one_line(error, 300)}"
        text = environment.get_template("error.html").render(title="this page cannot be shown", what=f"{why}. {BROKEN}")
        return HTMLResponse(text, 500, headers={"cache-control": "no-store"})

    run = "/runs/{run}"
    routes = [
        Route("/", page("leaderboard.html", boards.leaderboard)),
        Route("/runs", page("runs.html", boards.runs)),
        Route(run, page("run.html", boards.run)),
        Route(f"{run}/grid", page("grid.html", boards.grid)),
        Route(f"{run}/questions", page("questions.html", questions.listed)),
        Route(f"{run}/question", page("question.html", questions.one)),
        Route("/picture", picture),
        Mount("/static", StaticFiles(packages=[("leverplus_core.view", "static")])),
    ]
    return Starlette(routes=routes, exception_handlers={404: absent, 500: broken})


def _answer(url: str, environment: Environment, template: str, compute: Page, request: Request) -> Response:
    query = Query.of([*request.query_params.multi_items(), *request.path_params.items()])
    status, title = 503, "the registry cannot be read"
    try:
        with Registry(url, read_only=True) as registry:
            status, title = 404, "not there"
            found = compute(registry, query)
        if isinstance(found.get("moved"), str):
            return RedirectResponse(found["moved"], 303)
        text = environment.get_template(template).render(found)
        return HTMLResponse(text, headers={"cache-control": "no-store"})
    except LeverplusError as e:
        text = environment.get_template("error.html").render(title=title, what=str(e))
        return HTMLResponse(text, status, headers={"cache-control": "no-store"})


def _picture(url: str, query: Query, known: str | None) -> Response:
    """A small copy of a picture that a row of the registry names; no other file is ever opened."""
    try:
        side = query.integer("side", SIDES["small"])
        if side is None or side not in SIDES.values():
            raise RegistryError(f"no pictures of {side} pixels.", f"Known: {', '.join(map(str, SIDES.values()))}.")
        with Registry(url, read_only=True) as registry:
            path = _named(registry, query)
        if path is None:
            raise RegistryError("the registry names no such picture.")
        state = os.stat(path)
        tag = hashlib.sha256(f"{path}\0{state.st_mtime_ns}\0{state.st_size}\0{side}".encode()).hexdigest()[:32]
        headers = {"etag": f'"{tag}"', "cache-control": "private, no-cache"}
        if known is not None and f'"{tag}"' in known:
            return Response(status_code=304, headers=headers)
        try:
            return Response(_small(path, side, tag), media_type=MEDIA_TYPE, headers=headers)
        except DataError as e:
            return Response(_told(str(e), side), media_type="image/svg+xml", headers=headers)
    except OSError as e:
        return PlainTextResponse(f"the picture cannot be read: {e.strerror}\n", 404)
    except (LeverplusError, ValueError) as e:
        return PlainTextResponse(f"{e}\n", 404)


def _told(why: str, side: int) -> str:
    """A picture that says why there is none."""
    lines = "".join(f'<tspan x="50%" dy="1.3em">{escape(shown(line))}</tspan>' for line in wrap(why, 24)[:9])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160" width="{side}" height="{side}">'
        f'<text y="4" text-anchor="middle" font-size="11" font-family="sans-serif" fill="#808080">{lines}</text></svg>'
    )


def _named(registry: Registry, query: Query) -> str | None:
    run = query.text("run")
    if question := query.text("question"):
        row = registry.question(run, question)
    else:
        row = next(iter(registry.demonstrations(run, [query.text("demonstration")]).values()), None)
    return row["image_path"] if row else None


@lru_cache(maxsize=KEPT)
def _small(path: str, side: int, tag: str) -> bytes:
    del tag  # another one for another content
    return thumbnail(path, side)


def _percent(value: float | None) -> str:
    return "?" if value is None else percent(value)


def _ends(row: Mapping[str, Any]) -> str:
    return interval(row["delta_low"], row["delta_high"])


def _took(seconds: float | None) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _when(moment: str) -> str:
    """The registry's time to the minute."""
    return moment[:16].replace("T", " ")


def _environment(url: str) -> Environment:
    environment = templates("leverplus_core.view")
    with Registry(url, read_only=True) as registry:
        environment.globals["registry_url"] = registry.url
    environment.globals["link"] = link
    environment.filters |= {
        "percent": _percent, "points": points, "ends_of_delta": _ends, "took": _took, "when": _when,
        "shots": shots_text,
    }  # fmt: skip
    return environment
