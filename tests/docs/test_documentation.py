"""The pages as a reader takes them: code that imports, commands that parse, links that lead somewhere."""

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmri_models.cli.main import build_parser
from fmri_models.known_classes import class_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)

# A block that shows a file has its language in braces; one that the reader saves has the file's name as its title.
FENCE = re.compile(r"^( *)```(\w*)(?: [^`\n]*)?\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# [text](target), but no picture's title and nothing in code.
LINK = re.compile(r"\]\(([^)\s]+)\)")
API_NAME = re.compile(r"^::: (\S+)$", re.MULTILINE)
# A page shows the names of an alternative (`stimulus|kfold`), of which any is one.
ALTERNATIVES = re.compile(r"\b(\w+)(?:\|\w+)+")


def blocks(page: Path, *languages: str) -> list[str]:
    """Code blocks of a page in one of some languages; "" is a block that names none."""
    return [text for _, language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Arguments of the lines of a page that call `fmri-models`."""
    for block in blocks(page, "bash", "sh", ""):
        yield from commands_of(block)


def commands_of(block: str) -> Iterator[list[str]]:
    """Those of a block, without comments; long lines may be continued."""
    for line in block.replace("\\\n", " ").splitlines():
        # What a reference says of a command stands two blanks or more behind it.
        typed = re.split(r"\s{2,}(?=[a-z#])" if not line.startswith(" ") else r"\s#", line.strip())[0]
        if typed.startswith("fmri-models "):
            arguments = shlex.split(ALTERNATIVES.sub(r"\1", typed), comments=True)[1:]
            # What another program does with the output is no argument.
            ends = [number for number, argument in enumerate(arguments) if argument in ("|", ">")]
            yield arguments[: min(ends, default=len(arguments))]


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def resolve(path: str) -> Any:
    """What a dotted name stands for, as `from … import …` and attributes would find it."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"{path} cannot be imported")


@EVERY_PAGE
def test_python_parses_and_its_imports_from_here_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "fmri_models":
                assert [name.name for name in node.names if not hasattr(resolve(str(node.module)), name.name)] == []


@EVERY_PAGE
def test_names_of_the_package_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for name in re.findall(r"`(fmri_models(?:\.\w+)+)", text):
        assert resolve(name) is not None


@EVERY_PAGE
def test_commands_are_commands(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands(page):
        try:
            build_parser().parse_args(arguments)
        except SystemExit as ended:
            assert ended.code == 0, f"fmri-models {' '.join(arguments)}: {capsys.readouterr().err}"


def test_commands_are_found() -> None:
    assert ["prepare", "arrays"] in [arguments[:2] for arguments in commands(ROOT / "README.md")]
    assert ["data", "split", "DIR", "--name", "NAME", "--by", "stimulus"] in list(commands(ROOT / "docs" / "data.md"))


@EVERY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        if anchor and linked.suffix == ".md":
            assert anchor in headings(linked), f"{target}: there is no such heading"


def test_every_page_is_in_the_navigation() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.md", str(yaml.safe_load(settings)["nav"])))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}


def test_the_home_page_has_pictures() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    assert pictures and all((ROOT / "docs" / picture).is_file() for picture in pictures)


API_PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
API = [name for page in API_PAGES for name in API_NAME.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", API)
def test_what_the_api_names_can_be_imported_as_written(name: str) -> None:
    assert resolve(name) is not None


def test_nothing_stands_twice_in_the_api() -> None:
    assert len({id(resolve(name)) for name in API}) == len(API)


@pytest.mark.parametrize("package", ["fmri_models", "fmri_models.data", "fmri_models.evaluation"])
def test_every_public_name_is_on_a_page_of_the_api(package: str) -> None:
    documented = {id(resolve(name)) for name in API}
    module = import_module(package)
    # The classes of methods are found by name and need not be listed.
    names = {name for name in (*module.__all__, *(class_names() if package == "fmri_models" else ())) if name[0] != "_"}
    assert sorted(name for name in names if id(getattr(module, name)) not in documented) == []


@EVERY_PAGE
def test_lists_begin_after_an_empty_line(page: Path) -> None:
    # GitHub shows others as lists, too, and MkDocs as a part of the paragraph.
    lines = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    is_item = [re.match(r" *([-*]|\d+\.) ", line) is not None for line in lines]
    joined = [
        line
        for before, line, was_item, item in zip(lines, lines[1:], is_item, is_item[1:], strict=False)
        if item and before.strip() and not was_item and not before.startswith(" ")
    ]
    assert joined == []
