"""What the page can show: pipelines with the tables that they are tried on, loaded when somebody chooses them."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.report import REPORT_FILE, Report
from ..examples import EXAMPLES_FOLDER, example_names, load_example
from ..hub.report_beside import check_report
from ..hub.saved_pipeline import SavedPipeline
from ..hub_repository import is_repository_id, local_folder
from ..names import one_line
from ..pipeline_fmri import FmriToImagePipeline
from .decoder import Decoder

OUTPUTS = Path("outputs")
DEFAULT_MODEL = OUTPUTS / "demo" / "pipeline"
DEFAULT_DATA = OUTPUTS / "demo" / "data"
EXAMPLE = "mindeye-scenes"
_EXAMPLES_TABLE = "examples of the package"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exhibit:
    """A pipeline on a table.

    Args:
        data: What the table is called on the page.
        method: What the pipeline is called.
        load: Loads both.
        folder: Where the pipeline lies, if it is here.
    """

    data: str
    method: str
    load: Callable[[], Decoder]
    folder: Path | None = None

    def report(self) -> Report | None:
        """The report that measured this pipeline; None where there is none beside it."""
        for folder in () if self.folder is None else (self.folder, self.folder.parent):
            path = folder / REPORT_FILE
            if not path.exists():
                continue
            try:
                report = Report.load(path)
                check_report(report, SavedPipeline.read(self.folder or folder))
            except FmriModelsError as error:
                logger.warning("%s is not shown: %s", path, error)
                continue
            return report
        return None


class Shelf:
    """Exhibits by data set and method.

    Args:
        exhibits: At least one.
    """

    def __init__(self, exhibits: Iterable[Exhibit]) -> None:
        self._exhibits = {(each.data, each.method): each for each in exhibits}
        self._decoders: dict[tuple[str, str], Decoder] = {}
        self._loading = Lock()

    @property
    def data_sets(self) -> list[str]:
        """Names of the tables."""
        return list(dict.fromkeys(data for data, _ in self._exhibits))

    def methods(self, data: str) -> list[str]:
        """Names of the pipelines of a table.

        Raises:
            FmriModelsError: There is no such table.
        """
        if data not in self.data_sets:
            raise FmriModelsError(f"There is no data set {one_line(data, 80)}; choose one of the list.")
        return [method for name, method in self._exhibits if name == data]

    def exhibit(self, data: str, method: str) -> Exhibit:
        """What is called so.

        Raises:
            FmriModelsError: There is nothing of these names.
        """
        if method not in self.methods(data):
            raise FmriModelsError(f"There is no method {one_line(method, 80)} for {data}; choose one of the list.")
        return self._exhibits[data, method]

    def wait(self, seconds: float) -> None:
        """Returns once nothing is drawn, or after some seconds a decoder."""
        for decoder in list(self._decoders.values()):
            decoder.wait(seconds)

    def leave_out(self, data: str, method: str, error: FmriModelsError) -> None:
        """Shows an exhibit no more that can't be shown, and says why in the log.

        Raises:
            FmriModelsError: It is the last one.
        """
        if len(self._exhibits) == 1:
            raise error
        logger.warning("%s of %s is not shown: %s", method, data, error)
        del self._exhibits[data, method]

    def decoder(self, data: str, method: str) -> Decoder:
        """A pipeline on its table, loaded when it is asked for first.

        Raises:
            FmriModelsError: There is nothing of these names, or it can't be loaded.
        """
        exhibit = self.exhibit(data, method)
        with self._loading:
            if (data, method) not in self._decoders:
                self._decoders[data, method] = exhibit.load()
            return self._decoders[data, method]


def load_decoder(model: str, data: str, unseen_session: str | None = None) -> Decoder:
    """Loads a pipeline and a trial table from folders or from the Hub.

    Raises:
        FmriModelsError: One of them is missing; the message says how to make it.
    """
    _check_named(model, data)
    return Decoder(_pipeline(model, unseen_session), _table(data))


def _check_named(model: str, data: str) -> None:
    for name, what, variable in ((model, "pipeline", "FMRI_MODEL"), (data, "trial table", "FMRI_DATA")):
        if not name or not (Path(name).is_dir() or is_repository_id(name)):
            raise FmriModelsError(
                f"There is no {what} in {one_line(name)}; run `make demo` (or `fmri-models demo`) first, or name "
                f"another one with --{variable.removeprefix('FMRI_').lower()} or the environment variable {variable}."
            )


def _pipeline(model: str, unseen_session: str | None) -> FmriToImagePipeline:
    return FmriToImagePipeline.from_pretrained(model, unseen_session=unseen_session)


def _table(data: str) -> TrialTable:
    return TrialTable.open(local_folder(data, ["*"], repo_type="dataset"))


def choose_shelf(model: str | None = None, data: str | None = None, unseen_session: str | None = None) -> Shelf:
    """What was named, else what demos have written into `outputs/`, and the examples that the package carries.

    Args:
        model: Folders or repositories of pipelines, separated by commas.
        data: Folder or repository of the trial table.
        unseen_session: What is done with sessions of which a processor has no statistics; without, what it says.

    Raises:
        FmriModelsError: Nothing of what was named can be loaded; the message says how to make it.
    """
    if model or data:
        models = [name.strip() for name in (model or str(DEFAULT_MODEL)).split(",") if name.strip()]
        if not models:
            raise FmriModelsError(
                f"--model is {one_line(repr(model))}, which names no pipeline; give one, or several with commas "
                "between."
            )
        exhibits = _named(models, data or str(DEFAULT_DATA), unseen_session)
    else:
        exhibits = [*_demos(unseen_session), *_examples(unseen_session)]
    return Shelf(exhibits)


def _named(models: list[str], data: str, unseen_session: str | None) -> list[Exhibit]:
    found: list[Exhibit] = []
    for model in models:
        _check_named(model, data)
    table = _table(data)
    for model in models:
        # Loaded at once: whoever names something is told at once what is wrong with it.
        try:
            decoder = Decoder(_pipeline(model, unseen_session), table)
        except FmriModelsError as error:
            if len(models) == 1:
                raise
            raise FmriModelsError(f"The pipeline {one_line(model)} can't be shown: {error}") from error
        names = [each.method for each in found]
        method = _unlike(_method_name(model), names)
        folder = Path(model) if Path(model).is_dir() else None
        found.append(Exhibit(decoder.table.name, method, partial(_identity, decoder), folder))
    return found


def _demos(unseen_session: str | None) -> list[Exhibit]:
    """Those of which both pipeline and table are there, the one of the default folder first."""
    found: list[Exhibit] = []
    tables: dict[Path, str] = {}
    pipelines = sorted(OUTPUTS.glob("*/pipeline"), key=lambda path: (path != DEFAULT_MODEL, str(path)))
    for pipeline in pipelines:
        data = pipeline.parent / "data"
        try:
            table = TrialTable.open(data)
            method = _method_name(str(pipeline))
        except FmriModelsError as error:
            logger.warning("%s is not shown: %s", pipeline, error)
            continue
        name = tables.setdefault(data, _unlike(f"{table.name} ({pipeline.parent})", list(tables.values())))
        names = [each.method for each in found if each.data == name]
        load = partial(load_decoder, str(pipeline), str(data), unseen_session)
        found.append(Exhibit(name, _unlike(method, names), load, pipeline))
    return found


def _examples(unseen_session: str | None) -> list[Exhibit]:
    names = sorted(example_names(), key=lambda name: (name != EXAMPLE, name))
    return [
        Exhibit(_EXAMPLES_TABLE, name, partial(_example, name, unseen_session), EXAMPLES_FOLDER / name)
        for name in names
    ]


def _example(name: str, unseen_session: str | None) -> Decoder:
    options = {} if unseen_session is None else {"unseen_session": unseen_session}
    pipeline, trials = load_example(name, **options)
    return Decoder(pipeline, trials.table)


def _identity(decoder: Decoder) -> Decoder:
    return decoder


def _method_name(model: str) -> str:
    """What a pipeline is called: its repository, or its method."""
    return SavedPipeline.read(Path(model)).method.name if Path(model).is_dir() else model


def _unlike(name: str, taken: list[str]) -> str:
    """A name that is not taken, with a number where it is."""
    number = sum(each == name or each.startswith(f"{name} (") for each in taken)
    return f"{name} ({number + 1})" if number else name
