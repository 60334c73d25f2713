"""What the documentation's build adds to MkDocs; skipped where the extra `docs` is not installed."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

griffe = pytest.importorskip("griffe", reason="the extra docs is not installed")
pytest.importorskip("latex2mathml", reason="the extra docs is not installed")


@pytest.fixture
def hooks(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    import documentation_hooks

    return documentation_hooks


@pytest.fixture
def docstrings(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Docstrings of a small package, after the extension has gone through them, by the paths of their objects."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    from documentation_links import DocumentationLinks

    def read(**modules: str) -> dict[str, str]:
        package = tmp_path / "sample"
        package.mkdir()
        for name, text in {"__init__": "", **modules}.items():
            (package / f"{name}.py").write_text(text)
        extensions = griffe.load_extensions(DocumentationLinks())
        loaded = griffe.load("sample", search_paths=[tmp_path], extensions=extensions)
        found = {}

        def collect(item) -> None:
            if item.docstring is not None:
                found[item.path.removeprefix("sample.")] = item.docstring.value
            for member in item.members.values():
                if not member.is_alias:
                    collect(member)

        collect(loaded)
        return found

    return read


def linked(path: str, shown: str) -> str:
    return f'<autoref identifier="sample.{path}" optional><code>{shown}</code></autoref>'


SHAPES = '''
class Shape:
    """A shape; see [`area`]."""

    def area(self):
        """Of [`Shape`], as [`Square.side`] says; in full [`sample.shapes.Shape`]."""


class Square(Shape):
    """A [`Shape`]; [`~Square.area`] is that of [`Shape.area`]."""

    side = 1
    """A number, and `[code]` stays."""
'''


def test_names_in_docstrings_become_links(docstrings) -> None:
    found = docstrings(shapes=SHAPES)
    assert found["shapes.Shape"] == f"A shape; see {linked('shapes.Shape.area', 'area')}."
    assert linked("shapes.Shape", "Shape") in found["shapes.Shape.area"]
    assert linked("shapes.Square.side", "Square.side") in found["shapes.Shape.area"]
    # An inherited method is found where it is defined; with ~ its last part is shown.
    assert linked("shapes.Shape.area", "area") in found["shapes.Square"]
    assert linked("shapes.Shape.area", "Shape.area") in found["shapes.Square"]
    assert found["shapes.Square.side"] == "A number, and `[code]` stays."


def test_names_are_found_by_imports_and_in_the_whole_package(docstrings) -> None:
    other = '"""About [`Square`] and [`Form`]."""\nfrom .shapes import Shape as Form\n'
    found = docstrings(shapes=SHAPES, other=other)
    assert found["other"] == f"About {linked('shapes.Square', 'Square')} and {linked('shapes.Shape', 'Form')}."


def test_a_name_that_does_not_exist_is_a_warning(docstrings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = docstrings(shapes='"""A [`Circle`]."""\n')
    assert found["shapes"] == "A `Circle`."
    assert "sample.shapes: there is nothing called Circle." in caplog.text


@pytest.mark.slow
def test_docstrings_of_the_package_name_what_exists(
    repository: Path, caplog: pytest.LogCaptureFixture, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    from documentation_links import DocumentationLinks

    with caplog.at_level(logging.WARNING, logger="mkdocs.plugins.documentation_links"):
        extensions = griffe.load_extensions(DocumentationLinks())
        griffe.load("fmri_models", search_paths=[repository], extensions=extensions)
    assert "there is nothing called" not in caplog.text


def test_formulas_become_mathml(hooks) -> None:
    page = (
        '<p>With <span class="arithmatex">\\(a &lt; \\alpha\\)</span>:</p>'
        '<div class="arithmatex">\\[\n\\frac{1}{n}\n\\]</div>'
    )
    drawn = hooks.on_page_content(page)
    assert "arithmatex" not in drawn
    assert drawn.count("<math ") == 2
    assert 'display="block"' in drawn and "<mfrac>" in drawn


@pytest.mark.parametrize(
    "fetched",
    [
        '<script src="https://example.org/a.js"></script>',
        '<img alt="" src=//example.org/a.png>',
        '<link rel="stylesheet" href="https://example.org/a.css">',
        '<link href="https://example.org/a.css" rel="stylesheet">',
        "<style>@import '//example.org/a.css'</style>",
    ],
)
def test_pages_that_fetch_from_elsewhere_are_a_warning(
    hooks, tmp_path: Path, caplog: pytest.LogCaptureFixture, fetched: str
) -> None:
    (tmp_path / "page.html").write_text(f"<body>{fetched}</body>")
    (tmp_path / "other.html").write_text('<a href="https://example.org">a link</a><img src="images/own.png">')
    with caplog.at_level(logging.WARNING):
        hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert "page.html fetches" in caplog.text and "example.org/a" in caplog.text
    assert "other.html" not in caplog.text
