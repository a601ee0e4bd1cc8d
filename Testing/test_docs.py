"""The docs, held against what they tell of: commands, links, messages, figures."""

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from docs_scripts import script_of
from extension_files import MODULES, ROOT
from test_extension import cmake_value

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAIN = {"cd", "cut", "git"}
"""Commands of the system, which are not ours to check."""
LOCALIZER_CARD = ROOT / "CTSliceTools/CTSliceToolsLib/Resources/Models/slice-localizer.json"


def commands(page: Path) -> Iterator[str]:
    """Give each command line in the fenced blocks of a page, without its comment."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif language != "bash":
            continue
        yield from (line for line in lines if line.strip() and not line.startswith("#"))


def named_commands(page: Path) -> Iterator[str]:
    """Give each command of ours that the text of a page names, such as `ct-slice-tools train`."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from re.findall(rf"`((?:{'|'.join(OURS)}) [^`]+)`", text)


def nodules() -> typer.Typer:
    from LungNoduleSegLib.cli import app

    return app


def slices() -> typer.Typer:
    from CTSliceToolsLib.cli import app

    return app


OURS = {"lung-nodule-seg": nodules, "ct-slice-tools": slices}
COMMANDS = [(page.name, line) for page in PAGES for line in commands(page)]
NAMED = [(page.name, line) for page in PAGES for line in named_commands(page)]


def test_pages_have_commands() -> None:
    assert len(COMMANDS) > 40
    assert {"README.md", "CONTRIBUTING.md", "first-run.md"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_can_be_called_like_that(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        words.pop(0)
    check(words)


def check(words: list[str]) -> None:
    """See that a command line could be run as far as its words go."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program in OURS:
        parse(program, arguments)
    elif program == "make":
        targets = {name for name in arguments if "=" not in name}
        assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    elif program in {"python", "bash"}:
        check_script(arguments)
    elif program == "pytest":
        for name in arguments:
            assert not name.endswith(".py") or (ROOT / name).is_file()
    elif program == "pip":
        check_extras(arguments)
    elif program == "Slicer":
        assert "--python-script" in arguments
    elif program == "dask":
        check_dask(*arguments)
    else:
        assert program in PLAIN, program


def parse(program: str, arguments: list[str]) -> None:
    """Parse the arguments of one of our commands; it is not run."""
    command, rest = command_of(program, arguments)
    if "--help" not in rest:
        command.make_context(program, rest).close()


def command_of(program: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """Give the command that words call, and the words after its name."""
    command: Any = typer.main.get_command(OURS[program]())
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        assert name in command.commands
        command = command.commands[name]
    return command, list(arguments)


@pytest.mark.parametrize(("page", "line"), NAMED)
def test_a_command_in_the_text_has_these_options(page: str, line: str) -> None:
    program, *arguments = line.split()
    command, rest = command_of(program, arguments)
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    assert {word.split("=")[0] for word in rest if word.startswith("-")} <= known | {"--help"}


def check_script(arguments: list[str]) -> None:
    """See that a script is there and knows its options; `batch.py` is a reader's own copy."""
    name, *rest = arguments
    if name in {"batch.py", "-m"}:
        return
    text = (ROOT / name).read_text(encoding="utf-8")
    for option in rest:
        if option.startswith("-"):
            assert f'"{option.split("=")[0]}"' in text


def check_extras(arguments: list[str]) -> None:
    """See that what pip is to install with this project is one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for one in arguments for extra in re.findall(r"\.\[(.+)\]", one)}
    assert arguments[0] == "install"
    assert {one for extra in named for one in extra.split(",")} <= set(
        project["optional-dependencies"]
    )


def check_dask(kind: str, *arguments: str) -> None:
    """Parse a command of Dask's own."""
    from distributed.cli import dask_scheduler, dask_worker

    command = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}[kind]
    command.make_context(kind, list(arguments)).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists() or "generated" in target.parts, link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Give the anchors of the headings of a page, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one).strip().lower().replace(" ", "-") for one in headings}


@cache
def texts_of_the_code() -> str:
    """Give every string in the code, a line each, with `…` for what is put into it."""
    found = []
    for module in MODULES:
        for file in (ROOT / module).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"\{\w+\}", "…", node.value))
                elif isinstance(node, ast.JoinedStr):
                    found.append("".join(map(part_of_text, node.values)))
    return "\n".join(found)


def part_of_text(node: ast.expr) -> str:
    """Give a part of an f-string as it is, or `…` for a value."""
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def messages() -> list[str]:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(.+)`$", text, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_a_message_still_exists(message: str) -> None:
    assert message in texts_of_the_code()


def test_the_tables_of_files_are_those_of_the_code() -> None:
    file_tables = script_of("file_tables")
    text = file_tables.PAGE.read_text(encoding="utf-8")
    assert file_tables.written(text) == text, "run docs/file_tables.py"


def test_the_localizer_page_quotes_its_card() -> None:
    card = json.loads(LOCALIZER_CARD.read_text(encoding="utf-8"))
    left_out = card["results"]["each patient left out of training in turn"]
    text = (DOCS / "localizer.md").read_text(encoding="utf-8")
    assert f"{left_out['raw']['landmarks_mm']} mm for each slice by itself" in text
    assert f"{left_out['scan-consistent']['landmarks_mm']} mm after the fit without anchors" in text


def test_the_repository_has_one_address() -> None:
    address = cmake_value("EXTENSION_HOMEPAGE")
    owner = address.rsplit("/", 1)[0]
    listed = subprocess.run(
        ["git", "grep", "-hoI", f"{owner}/[A-Za-z]*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    if not listed:
        pytest.skip("this is no git checkout")
    assert set(listed) == {address}


def test_the_readme_fits_on_a_screen_and_says_once_what_it_is_not() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, *_ = text.split("\n## ")
    assert len(first.splitlines()) <= 45
    assert text.lower().count("medical device") == 1


@pytest.mark.slow
def test_the_first_run_can_be_followed_word_by_word(tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    for language, block in FENCE.findall((DOCS / "first-run.md").read_text(encoding="utf-8")):
        assert language == "bash"
        done = subprocess.run(
            ["bash", "-euc", f'PATH="{scripts.as_posix()}:$PATH"\n{block}'],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    assert {one.name for one in tmp_path.iterdir()} >= {"results", "growth", "many", "chest.json"}
    assert (tmp_path / "many" / "results.csv").read_text().count("\n") == 2


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install '.[docs]'")
    command = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-d"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "trees"), str(DOCS), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "models", "generated/lung-nodule-seg"):
        assert (tmp_path / "site" / f"{page}.html").stat().st_size > 10_000
