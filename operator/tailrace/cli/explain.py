"""`tailrace explain`: where a router would send a request, and why not elsewhere."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import typer

from tailrace.cli.status import shown
from tailrace.words import counted

PATH = "/debug/pick"
TIMEOUT_SECONDS = 5
GAP = "  "
HINTS = {
    "model_not_found": "names match exactly; GET /v1/models on the proxy's port lists what is served",
    "model_ambiguous": "here: -n NAMESPACE",
}
"""What to do here about a refusal, beside what a client is told."""
COLUMNS = ("", "name", "address", "state", "in flight", "score", "why")

Explained = dict[str, Any]


def explain(
    *,
    model: Annotated[str, typer.Argument(help="The model, alias or adapter that a client would ask for.")],
    prompt: Annotated[
        str | None, typer.Option(help="The prompt; with strategies that remember prefixes it matters.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", "-f", help="A file with the prompt, or with a whole JSON request.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens of prompt and answer. Default: estimated from the prompt.")
    ] = None,
    session: Annotated[str | None, typer.Option(help="The session that the request belongs to.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Where the model is served, if in several namespaces.")
    ] = None,
    admin: Annotated[
        str, typer.Option(envvar="TAILRACE_ADMIN", help="The router's admin port; each replica knows its own picks.")
    ] = "http://127.0.0.1:9090",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show which endpoint a request would be given, how the candidates compare, and what filters the others.

    Nothing is picked, and nothing changes. In a cluster, first: kubectl -n tailrace-system port-forward POD 9090.

    Exit codes: 0 an endpoint would be picked, 1 none would (the reason is shown), 2 the router could not be asked.
    """
    asked = {"model": model, "tokens": tokens, "session": session, "namespace": namespace}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + PATH
    document = _document(prompt, prompt_file)
    try:
        found = _ask(f"{url}?{query}", document)
        text = json.dumps(found, indent=2) if as_json else "\n".join(_lines(found))
        code = 0 if found["picked"] else 1
    except HTTPError as error:
        typer.echo(f"{url} answers {error.code}: {_message(error)}", err=True)
        raise typer.Exit(2) from error
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
        typer.echo(f"cannot read {url}: {error}; is a router's admin port there? name it with --admin", err=True)
        raise typer.Exit(2) from error
    typer.echo(text)
    raise typer.Exit(code)


def _document(prompt: str | None, file: Path | None) -> dict[str, Any]:
    """Return the request's body: what the file holds if that is one, or the prompt as one message."""
    text = prompt
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            typer.echo(f"cannot read {file}: {error}; give a text file", err=True)
            raise typer.Exit(2) from error
        document = _json(text)
        if document is not None:
            return document
    return {} if text is None else {"messages": [{"role": "user", "content": text}], "stream": True}


def _json(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _ask(url: str, document: dict[str, Any]) -> Explained:
    request = urllib.request.Request(url, json.dumps(document).encode(), method="POST")  # noqa: S310 - the user's own address
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        found: Explained = json.load(answer)
    return found


def _message(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (OSError, ValueError, LookupError, TypeError):
        return error.reason


def _lines(found: Explained) -> Iterator[str]:
    where = f"pool {found['pool']}, {found['strategy']}" if found["pool"] else "no pool"
    yield f"model {found['model']}, about {counted(found['tokens'], 'token')}; {where}"
    refusal = found["refusal"]
    if refusal is not None:
        hint = HINTS.get(refusal["code"], "")
        yield f"nobody would be picked ({refusal['code']}): {refusal['message']}{hint and f'; {hint}'}"
    if found["wouldWait"]:
        yield f"at the proxy it would wait for its turn: {_why_wait(found)}"
    if found["candidates"]:
        yield ""
        yield from _table([_cells(each) for each in found["candidates"]])
    others = found["endpointsOfOtherModels"]
    if others:
        yield f"\n{counted(others, 'endpoint')} of other models only"
    elif not found["candidates"]:
        yield "\nthis router knows no endpoint at all"


def _why_wait(found: Explained) -> str:
    if found["waiting"]:
        return f"{counted(found['waiting'], 'request')} of the pool already waiting"
    return "for a free slot" if found["refusal"] else "every endpoint compared has prompts to compute for a while"


def _cells(candidate: dict[str, Any]) -> tuple[str, ...]:
    parts = dict(candidate["parts"])
    score, guessed = parts.pop("score", None), parts.pop("speedGuessed", 0)
    notes = {"prefillTokensPerSecond": " (a guess so far)"} if guessed else {}
    failures = candidate.get("connectFailures", 0)
    trouble = [f"no connection could be made {counted(failures, 'time')} in a row"] if failures else []
    why = trouble + (
        candidate["against"] or [f"{name} {value:.6g}{notes.get(name, '')}" for name, value in parts.items()]
    )
    return (
        candidate["standing"],
        candidate["name"],
        candidate["address"],
        candidate["state"],
        f"{candidate['inFlight']}/{candidate['slots']}",
        "" if score is None else f"{score:.4g}",
        "; ".join(why) if candidate["against"] else ", ".join(why),
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    cells = [tuple(name.upper() for name in COLUMNS), *(tuple(map(shown, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
