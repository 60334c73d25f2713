"""A hidden folder beside an output folder, of work that can be interrupted and gone on with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import read_object
from ..saving import check_schema, json_text, remove_folder, write_text
from ..swapping import is_partial, recover_below
from ..training_differences import differing
from ..version import __version__
from .processes import processes
from .stage_objectives import with_current_names

# 2: the training losses so far.
TRAINING_SCHEMA = 2
RUN_FILE = "run.json"


class RunFolder:
    """A hidden folder beside an output folder, of something that can be interrupted; `run.json` says what it is.

    Args:
        out: The output folder; the hidden one is `.<name>.<purpose>` beside it.
    """

    purpose: ClassVar[str]

    def __init__(self, out: Path) -> None:
        out = out.absolute()
        self.folder = out.parent / f".{out.name}.{self.purpose}"

    @property
    def exists(self) -> bool:
        """Whether there is anything to go on from."""
        raise NotImplementedError

    @contextmanager
    def kept_for_resume(self, run: Mapping[str, Any], resume: bool) -> Iterator[None]:
        """Makes the folder ready, and removes it if an error comes before there is anything to go on from.

        Args:
            run: What has to be the same to go on.
            resume: Go on with what is there, if there is anything.

        Raises:
            FmriModelsError: As [`RunFolder.begin`] and [`RunFolder.check_same_run`].
        """
        main = processes().is_main_process
        if resume and self.exists:
            self.check_same_run(run)
            if main:
                self.recover()
        elif main:
            self.begin(run)
        processes().wait_for_everyone()
        try:
            yield
        except BaseException:
            if main and not self.exists:
                self.remove()
            raise

    def check_own(self) -> None:
        """Refuses a folder of that name that no training has made.

        Raises:
            FmriModelsError: There is content and no `run.json`.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise FmriModelsError(
                f"{self.folder} is no folder, and checkpoints have to be written there; move it away."
            )
        if not self.folder.is_dir() or (self.folder / RUN_FILE).is_file():
            return
        if any(not is_partial(path.name) for path in self.folder.iterdir()):
            raise FmriModelsError(
                f"{self.folder} has content and is no folder of a training (it has no {RUN_FILE}), so that it is not "
                "replaced; move it away."
            )

    def begin(self, run: Mapping[str, Any]) -> None:
        """Starts a new run; what an earlier one left is removed.

        Raises:
            FmriModelsError: The folder is not a training's, or can't be written.
        """
        self.check_own()
        self.remove()
        write_text(self.folder / RUN_FILE, versioned_text(run))

    def check_same_run(self, run: Mapping[str, Any]) -> None:
        """Refuses to go on with something else than what was begun.

        Raises:
            FmriModelsError: Names the first difference.
        """
        begun = read_versioned(self.folder / RUN_FILE, "start again with --overwrite")
        for difference in differences(begun, run):
            raise FmriModelsError(
                f"The interrupted training in {self.folder} {difference}; resume with the same recipe and data, or "
                "start again with --overwrite."
            )

    def remove(self) -> None:
        """Removes everything."""
        remove_folder(self.folder)

    def recover(self) -> None:
        """Removes what a killed process had begun to write, and undoes a replacement that was under way."""
        recover_below(self.folder)


def versioned_text(values: Mapping[str, Any]) -> str:
    """What a file of a training holds: values, and which version has written them."""
    return json_text({"schema": TRAINING_SCHEMA, "fmri_models_version": __version__, **values})


def read_versioned(path: Path, mend: str) -> dict[str, Any]:
    """The values that [`versioned_text`] has written.

    Raises:
        FmriModelsError: They are damaged, or a newer version has written them.
    """
    try:
        values = read_object(path, "state of a training", mend)
    except FmriModelsError as error:
        raise FmriModelsError(f"The checkpoint {path.parent} is damaged ({str(error).rstrip('.')}).") from error
    check_schema(values.pop("schema", None), TRAINING_SCHEMA, str(path))
    values.pop("fmri_models_version", None)
    return values


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What two trainings differ in, each as the predicate of a sentence on the earlier training.

    Args:
        before: Of the earlier training: `recipe` and the fingerprints of its data.
        now: Of the other one.
    """
    if isinstance(before.get("recipe"), Mapping):
        before = {**before, "recipe": with_current_names(before["recipe"])}
    for key, then, today in differing(before, now):
        if key.endswith("_fingerprint"):
            yield f"is on other data than this (another {key.removesuffix('_fingerprint')})"
        else:
            name = one_line(key.removeprefix("recipe."), 80)
            yield f"has {name} {one_line(repr(then), 80)}, and now it is {one_line(repr(today), 80)}"
