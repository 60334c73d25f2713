"""Puts the page on the Hub as a Space, with the wheel that it runs with and the pipeline and table that it shows."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..hub_repository import (
    RepoType,
    commit,
    fetch_folder,
    files_there,
    is_folder,
    is_private,
    is_repository_id,
    make_repository,
    set_space_variable,
    space_variables,
)
from ..names import listed, one_line
from ..reading import read_text
from ..upload_checks import check_upload, check_wheel
from .own_wheel import OwnWheel
from .owner_statements import OwnerStatements
from .publishing import Publication, publication
from .saved_pipeline import SavedPipeline
from .space_readme import space_readme

MODEL_VARIABLE, DATA_VARIABLE = "FMRI_MODEL", "FMRI_DATA"
# Where folders that are shown go up.
_FOLDERS = {MODEL_VARIABLE: "model", DATA_VARIABLE: "data"}

_APP, _START, _README, _REQUIREMENTS = "app.py", "start.py", "README.md", "requirements.txt"
_EXTRA = "space"
_CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
# What the Hub puts into a Space that it makes.
_OF_THE_HUB = (".gitattributes", _README)
_OWN_PACKAGE_NAMED = re.compile(r"\bfmri_models\b")
_WHEEL = re.compile(r"fmri_models-[^/]+\.whl")


@dataclass(frozen=True)
class Shown:
    """A pipeline or a trial table that a Space shows.

    Args:
        variable: Variable of the Space that names it.
        value: Repository on the Hub, or the folder of the Space in which it goes up.
        repo_type: What its repository is.
        publication: What goes up of a folder here; None for a repository.
    """

    variable: str
    value: str
    repo_type: RepoType
    publication: Publication | None = None

    def contents(self) -> dict[str, Path | bytes]:
        """Name in the Space ▶ file or content; nothing of a repository."""
        if self.publication is None:
            return {}
        files: dict[str, Path | bytes] = {name: self.publication.folder / name for name in self.publication.files}
        return {f"{self.value}/{name}": content for name, content in {**files, **self.publication.additions}.items()}


@dataclass(frozen=True)
class PushedSpace:
    """A Space that was uploaded.

    Args:
        address: Where it is.
        commit: Address of the commit.
        variables: Name ▶ value of those of its variables that say what it shows.
        notes: What a person should know, a sentence each.
    """

    address: str
    commit: str
    variables: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class SpacePublication:
    """What goes up of a Space, checked.

    Args:
        wheel: The wheel of this package, from which the page comes, too.
        shown: The pipeline and the trial table; empty for the example that the wheel carries.
        notes: What a person should know before, a sentence each.
    """

    wheel: OwnWheel
    shown: Sequence[Shown] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """Name ▶ value of the variables that the Space gets."""
        return {each.variable: each.value for each in self.shown}

    def contents(self, readme: str | None = None) -> dict[str, Path | bytes]:
        """Name in the Space ▶ file or content.

        Args:
            readme: README.md of the Space as it is; None without one.
        """
        page = self.wheel.shipped("space")
        text = space_readme(page[_README].decode(), readme, self._repositories("model"), self._repositories("dataset"))
        own: dict[str, Path | bytes] = {
            _APP: page[_APP],
            _START: page[_START],
            _README: text.encode(),
            _REQUIREMENTS: _requirements(self.wheel).encode(),
            self.wheel.path.name: self.wheel.path,
        }
        return own | {name: content for each in self.shown for name, content in each.contents().items()}

    def sizes(self) -> dict[str, int]:
        """Name ▶ bytes, sorted."""
        found = {name: _size(content) for name, content in self.contents().items()}
        return dict(sorted(found.items()))

    def upload(
        self, repo_id: str, private: bool | None = None, commit_message: str | None = None, token: str | None = None
    ) -> PushedSpace:
        """Uploads it in one commit, into a Space that is made where there is none, and sets what it shows.

        Args:
            repo_id: `user/name`, or a name in the namespace of the token's user.
            private: Whether a Space that is made is private; None takes the namespace's default.
            commit_message: First line of the commit.
            token: Token; None takes the one that is logged in.

        Raises:
            FmriModelsError: A repository that it shows is not there, the Space has another app, there is no network, or
                the token may not write there.
        """
        notes = [note for each in self.shown for note in _notes_on_repository(each, token)]
        made = [{"key": name, "value": value} for name, value in self.variables.items()]
        space = make_repository(repo_id, "space", private, token, space_sdk="gradio", space_variables=made or None)
        name = space.repo_id
        there = files_there(name, "space", token)
        texts = _texts_there(name, there, token)
        _check_is_ours(name, there, texts.get(_APP, ""))
        contents = self.contents(texts.get(_README))
        done = commit(
            name,
            contents,
            _no_longer_needed(there, contents, [each.variable for each in self.shown]),
            "space",
            token,
            commit_message=commit_message or "Upload Space",
        )
        variables = self._set_variables(name, token)
        return PushedSpace(str(space), done.commit_url, variables, notes + self._notes_on_variables(variables))

    def _repositories(self, repo_type: RepoType) -> list[str]:
        return [each.value for each in self.shown if each.repo_type == repo_type and each.publication is None]

    def _set_variables(self, name: str, token: str | None) -> dict[str, str]:
        """Sets those that are other than they should be, as each change starts the Space again."""
        found = space_variables(name, token)
        for variable, value in self.variables.items():
            if found.get(variable) != value:
                try:
                    set_space_variable(name, variable, value, token)
                except FmriModelsError as error:
                    raise FmriModelsError(
                        f"The files of {name} are uploaded, and its variable {variable} is not set: {error} In the "
                        f"Space's settings it is set to {one_line(value, 120)} by hand."
                    ) from error
        known = {**found, **self.variables}
        return {variable: known[variable] for variable in _FOLDERS if variable in known}

    def _notes_on_variables(self, variables: Mapping[str, str]) -> list[str]:
        if self.shown or not variables:
            return []
        kept = listed(f"{name}={one_line(value, 120)}" for name, value in variables.items())
        return [f"The Space goes on showing what its variables name ({kept}); without them it shows the example."]


def space_publication(
    wheel: OwnWheel,
    model: str | None = None,
    data: str | None = None,
    statements: OwnerStatements | None = None,
    unevaluated: bool = False,
    write: bool = True,
    private: bool = False,
) -> SpacePublication:
    """What would go up of a Space, checked as everything is that goes to the Hub.

    Args:
        wheel: The wheel of this package.
        model: The pipeline that it shows: a folder, which goes up with it, or a repository on the Hub. Without, the
            example that the wheel carries.
        data: The trial table of which it shows the test trials, likewise.
        statements: What the owner of pipeline and table states.
        unevaluated: Whether a pipeline may go up that nobody has measured.
        write: Whether cards are written into these folders; they are left as they are where one only wants to know what
            would go up.
        private: Whether the Space is a private one, which may show tables of which nobody knows whether they may be
            passed on.

    Raises:
        FmriModelsError: One of the two is missing or is something else, they have no subject in common, the terms of
            the data forbid it, or a file may not be published.
    """
    if (model is None) != (data is None):
        given, missing = ("pipeline", "trial table") if data is None else ("trial table", "pipeline")
        raise FmriModelsError(
            f"A {given} was named and no {missing}; name both, as the page shows a pipeline on the test trials of a "
            "table, or neither for the example that comes with the package."
        )
    page = wheel.shipped("space")
    if absent := [name for name in (_APP, _START, _README) if name not in page]:
        raise FmriModelsError(
            f"The wheel {one_line(wheel.path)} has no {absent[0]} of the Space, so it is of another version than this "
            "package; build one of this version with `pip wheel --no-deps .` in its clone."
        )
    check_wheel(wheel.path)
    if model is None or data is None:
        return SpacePublication(wheel)
    options: dict[str, Any] = {
        "statements": statements or OwnerStatements(),
        "unevaluated": unevaluated,
        "write": write,
        "private": private,
    }
    shown = [_shown(MODEL_VARIABLE, model, "model", **options), _shown(DATA_VARIABLE, data, "dataset", **options)]
    of_model, of_data = (each.publication for each in shown)
    if of_model is not None and of_data is not None:
        _check_common_subject(of_model.folder, of_data.folder)
    notes = [note for each in shown if each.publication is not None for note in each.publication.notes]
    if of_data is not None and not TrialTable.open(of_data.folder).simulated:
        notes.append(
            "Whoever opens the Space sees pictures of the table and what is decoded of the brain activity of those who "
            "saw them; show it only as far as their consent goes."
        )
    return SpacePublication(wheel, shown, list(dict.fromkeys(notes)))


def _shown(variable: str, place: str, repo_type: RepoType, write: bool, **options: Any) -> Shown:
    what = "pipeline" if repo_type == "model" else "trial table"
    if not is_folder(place):
        if Path(place).exists() or not is_repository_id(place):
            raise FmriModelsError(
                f"{one_line(place)} is neither a folder nor a repository of the Hub (user/name); name a {what}."
            )
        return Shown(variable, place, repo_type)
    found = publication(Path(place), write=write, **options)
    if found.format != what:
        raise FmriModelsError(f"{one_line(place)} holds a {found.format}; expected the folder of a {what}.")
    if write:
        # Without, it was done already.
        check_upload(found.folder, found.files, found.additions)
    return Shown(variable, _FOLDERS[variable], repo_type, found)


def _check_common_subject(model: Path, data: Path) -> None:
    names, there = SavedPipeline.read(model).config.subject_names, TrialTable.open(data).subjects
    if not {*names} & {*there}:
        raise FmriModelsError(
            f"The pipeline {one_line(model)} was trained for {listed(names)}, and the trial table {one_line(data)} has "
            f"{listed(there)}, so that the page would have nothing to show; name the table that it was trained on."
        )


def _notes_on_repository(shown: Shown, token: str | None) -> list[str]:
    """Says so where a Space can't read a repository by itself; refuses one that is not there."""
    if shown.publication is not None or not is_private(shown.value, shown.repo_type, token):
        return []
    return [
        f"{shown.value} is private: the Space reads it only if its settings have a secret HF_TOKEN whose token may "
        "read it, and shows it to whoever may open the Space."
    ]


def _texts_there(name: str, there: Collection[str], token: str | None) -> dict[str, str]:
    """Those of a Space's texts that say what it is, as far as they are there."""
    wanted = [each for each in (_README, _APP) if each in there]
    if not wanted:
        return {}
    options = {} if token is None else {"token": token}
    folder = fetch_folder(name, wanted, "space", **options)
    return {each: read_text(folder / each, "file of the Space", "correct it there") for each in wanted}


def _check_is_ours(name: str, there: Collection[str], app: str) -> None:
    """Refuses to write over what is another's Space."""
    others = sorted({*there} - {*_OF_THE_HUB})
    if others and not _OWN_PACKAGE_NAMED.search(app):
        raise FmriModelsError(
            f"The Space {name} has another app ({listed(others)}), which would be lost; give another name, or empty "
            "the Space first."
        )


def _no_longer_needed(there: Collection[str], contents: Collection[str], variables: Collection[str]) -> list[str]:
    """Former wheels, and what was shown before in the place of something else."""
    replaced = [f"{_FOLDERS[variable]}/" for variable in variables]
    return [
        name
        for name in there
        if name not in contents and (_WHEEL.fullmatch(name) or any(name.startswith(each) for each in replaced))
    ]


def _requirements(wheel: OwnWheel) -> str:
    return "\n".join(
        [
            "# Written by `fmri-models push-space`. The build of a Space sees this file and none beside it: the wheel",
            f"# {wheel.path.name} is unpacked by {_START}, and here is what it needs.",
            "# PyTorch for a CPU; for a GPU, take the next line out.",
            f"--extra-index-url {_CPU_BUILDS}",
            *wheel.requirements(_EXTRA),
            "",
        ]
    )


def _size(content: Path | bytes) -> int:
    if isinstance(content, bytes):
        return len(content)
    return content.stat().st_size if content.is_file() else 0
