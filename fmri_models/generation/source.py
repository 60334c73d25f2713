"""Where an image generator's weights are, for whoever names a generator instead of containing it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator

from ..deprecation import renamed_argument
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..hub_repository import is_repository_id
from ..names import check_line, one_line

# What git takes for the name of a branch, of those that the Hub has.
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,254}")


@dataclass(frozen=True)
class GeneratorSource:
    """A generator by name, by place, or both.

    Args:
        name: Name of a generator; None asks the place which class it holds.
        repository: Folder or Hub repository; None takes the one that the class was published in.
        revision: Branch, tag or commit of a Hub repository.
        subfolder: Folder inside the repository.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None takes that of the pipeline.
        variant: Part of the names of its weights files, such as `"fp16"`; None for weights without a variant.
        options: Arguments of the generator's own `from_source`, such as `{"antialias": True}`.
        spaces: What the generator takes, `"image_embedding_space"` and so on ▶ [`EmbeddingSpace`] as a dictionary, so
            that a model of another space is refused without loading the generator. Empty where unknown.
    """

    name: str | None = None
    repository: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    dtype: str | None = None
    variant: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    spaces: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        place = self.repository
        if place is not None and self.subfolder is not None:
            place = f"{place}/{self.subfolder}"
        named = " of ".join(each for each in (self.name, place) if each is not None)
        return named if self.revision is None else f"{named} (revision {self.revision})"

    @renamed_argument("kind", "name", since="0.1")
    def space(self, name: str) -> EmbeddingSpace | None:
        """The stated [`EmbeddingSpace`] of that name; None if none is stated, or if the generator takes none."""
        values = self.spaces.get(name)
        return None if values is None else EmbeddingSpace.from_dict(dict(values))

    def to_dict(self) -> dict[str, Any]:
        """The fields that say something, for JSON."""
        return {key: value for key, value in asdict(self).items() if value}


def check_repository(value: str, what: str) -> str:
    """Returns a folder or Hub repository that a file names.

    Raises:
        FmriModelsError: It is neither the form of `user/name` nor one line that may be the path of a folder.
    """
    check_line(value, what)
    if not is_repository_id(value) and not value.strip("/"):
        raise FmriModelsError(f"The {what} is {one_line(repr(value))}; expected a folder, or a Hub repository.")
    return value


def check_revision(value: str, what: str) -> str:
    """Returns a branch, tag or commit that a file names.

    Raises:
        FmriModelsError: It is none, or would lead out of a cache's folder of revisions.
    """
    if not _REVISION.fullmatch(value) or ".." in value or "//" in value or value.endswith("/"):
        raise FmriModelsError(
            f"The {what} is {one_line(repr(value), 120)}; expected the name of a branch, a tag or a commit."
        )
    return value


def check_subfolder(value: str, what: str) -> str:
    """Returns a folder inside of another one that a file names.

    Raises:
        FmriModelsError: It leads elsewhere.
    """
    check_line(value, what)
    leads_elsewhere = (
        ".." in PurePosixPath(value).parts or Path(value).is_absolute() or "\\" in value or PureWindowsPath(value).drive
    )
    if leads_elsewhere or value.startswith("~"):
        raise FmriModelsError(
            f"The {what} is {one_line(repr(value), 120)}; expected a folder inside of the repository, which it is not."
        )
    return value


def _validator(check: Callable[[str, str], str], expected: str) -> AfterValidator:
    """The check for options that a file states, with what was expected alone as its error."""

    def validated(value: str) -> str:
        try:
            return check(value, expected)
        except FmriModelsError as error:
            raise ValueError(expected) from error

    return AfterValidator(validated)


Repository = Annotated[str, _validator(check_repository, "a folder, or a Hub repository as user/name")]
Revision = Annotated[str, _validator(check_revision, "the name of a branch, a tag or a commit")]
Subfolder = Annotated[str, _validator(check_subfolder, "a place inside of the repository")]
