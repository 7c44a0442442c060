"""The documents agree with the code: links lead somewhere, verbs, routes, errors, keys and make targets are all there are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import typer.main
from aiohttp import web
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup

from modelium import errors
from modelium.cli import app
from modelium.config import Settings
from modelium.controller import Controller
from modelium.gateway import build_app
from modelium.gateway.http.statuses import status_of
from modelium.metrics import Recorder
from modelium.triton.client import TritonClient
from modelium.values import State, Task

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md"))]
of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """GitHub's: lower case, spaces to dashes, punctuation dropped."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@of_every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, fragment = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.is_file(), f"{page.name} links to {target}"
        if fragment:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, f"{page.name} links to {target}"


@of_every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")):
        assert target in targets, f"{page.name}: make {target}"


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = text_of("Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^([a-z-]+):.* ## .+$", makefile, re.MULTILINE) == phony[1].split()


def test_ci_runs_what_make_check_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "exec make check" in script.read_text(encoding="utf-8")
    assert re.search(r"^check: lint types test ", text_of("Makefile"), re.MULTILINE)


# -- verbs ---------------------------------------------------------------------------------------------------------


def verbs() -> Iterator[tuple[str, TyperCommand]]:
    def walk(command: TyperCommand | TyperGroup, words: str) -> Iterator[tuple[str, TyperCommand]]:
        if isinstance(command, TyperGroup):
            for name, inner in command.commands.items():
                yield from walk(cast("TyperCommand | TyperGroup", inner), f"{words} {name}")
        else:
            yield words, command

    yield from walk(cast("TyperGroup", typer.main.get_command(app)), "modelium")


def test_every_verb_is_in_the_page_of_verbs_and_no_other() -> None:
    rows = re.findall(r"^\| `(modelium [a-z ]+?)(?: [A-Z-].*)?`", text_of("docs/cli.md"), re.MULTILINE)
    assert sorted(rows) == sorted(words for words, _ in verbs())


def test_every_option_is_in_the_page_of_verbs() -> None:
    page = text_of("docs/cli.md")
    for words, command in verbs():
        for parameter in command.params:
            long = [option for option in parameter.opts if option.startswith("--") and option != "--help"]
            for option in long:
                assert option in page, f"{words} {option}"


@of_every_page
def test_verbs_in_the_text_exist(page: Path) -> None:
    known = {words for words, _ in verbs()} | {"modelium VERB", "modelium runtime"}
    for words in re.findall(
        r"^(?:\$ )?(modelium [a-z]+)|`(modelium [a-zA-Z]+)", page.read_text(encoding="utf-8"), re.MULTILINE
    ):
        found = words[0] or words[1]
        assert any(verb == found or verb.startswith(found + " ") for verb in known), f"{page.name}: {found}"


# -- HTTP ----------------------------------------------------------------------------------------------------------


def routes() -> set[str]:
    """Method and path of everything the gateway serves; building it asks nothing of its parts."""
    gateway: web.Application = build_app(cast("Controller", None), cast("TritonClient", None), Settings(), Recorder())
    found = {(route.method, route.resource.canonical) for route in gateway.router.routes() if route.resource is not None}
    return {f"{'ANY' if method == '*' else method} {path}" for method, path in found if method != "HEAD"}


def test_every_route_is_in_the_page_of_http_and_no_other() -> None:
    rows = re.findall(r"^\| `((?:GET|POST|ANY) [^`]+)`", text_of("docs/http-api.md"), re.MULTILINE)
    assert sorted(rows) == sorted(routes())


def test_every_error_that_a_request_can_get_is_in_the_page_of_http() -> None:
    page = text_of("docs/http-api.md")
    documented = {(int(status), kind) for status, kind in re.findall(r"^\| (\d{3}) \| `(\w+)`", page, re.MULTILINE)}
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ModeliumError)]
    met = {(status_of(kind), kind.type) for kind in kinds if issubclass(kind, (errors.RequestError, errors.TritonError))}
    assert documented == met | {(500, "internal_error")}


def test_every_task_is_in_the_page_of_http() -> None:
    page = text_of("docs/http-api.md")
    for task in Task:
        assert task.value in page


def test_every_state_is_in_the_design() -> None:
    page = text_of("docs/design.md")
    for state in State:
        assert state.value in page


# -- configuration -------------------------------------------------------------------------------------------------


def keys(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{place}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{place}{name}.")


@of_every_page
def test_keys_in_the_text_exist(page: Path) -> None:
    sections = "|".join(Settings.model_fields)
    known = set(keys(Settings))
    for key in re.findall(rf"`((?:{sections})\.[a-z_.]+)(?::[^`]*)?`", page.read_text(encoding="utf-8")):
        if not key.endswith((".py", ".md", ".yaml")):
            assert key in known, f"{page.name}: {key}"


def test_the_rooms_of_the_design_are_the_rooms_of_the_tree() -> None:
    """Every module and package directly under ``modelium/`` is named in the table of rooms."""
    page = text_of("docs/design.md")
    for path in sorted((ROOT / "modelium").iterdir()):
        if (
            path.name.startswith(("_", "."))
            or path.suffix not in ("", ".py")
            or not (path.is_file() or (path / "__init__.py").is_file())
        ):
            continue
        name = path.name if path.is_file() else f"{path.name}/"
        assert f"`{name}`" in page, f"docs/design.md has no room {name}"


# -- how they are written ------------------------------------------------------------------------------------------


@of_every_page
def test_lines_have_at_most_110_columns(page: Path) -> None:
    """Rows of tables too. Code blocks and what cannot be broken (a URL, a link) do not count."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in prose.splitlines():
        breakable = re.sub(r"\[[^\]]*\]\([^)]*\)|https?://\S+", "", line)
        assert len(breakable) <= 110, f"{page.name}: {line}"


def test_every_path_that_contributing_names_exists() -> None:
    for path in re.findall(r"`([\w.-]+/[\w./*-]*)`", text_of("CONTRIBUTING.md")):
        assert any(ROOT.glob(path.removesuffix("/"))), f"CONTRIBUTING.md: {path}"


def test_every_module_that_the_design_names_exists() -> None:
    for path in re.findall(r"`([\w.-]+/[\w./-]*\.py)`", text_of("docs/design.md")):
        found = [*ROOT.glob(path), *ROOT.glob(f"modelium/**/{path}"), *ROOT.glob(f"repository_templates/**/{path}")]
        assert found, f"docs/design.md: {path}"
