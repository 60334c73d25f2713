"""Sources of fMRI without pictures, from which a stage learns beside its trials: of this table, or of others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..data.loading import TrialDataset
from ..data.processed import processed_subjects
from ..data.table import TrialTable
from ..data.table_processor import fit_processor
from ..errors import FmriModelsError
from ..hub_repository import is_folder
from ..names import listed, one_line
from ..option_types import Line, Names, check_fields
from ..processing_fmri import FmriProcessor
from ..typed_values import check_key


@dataclass(frozen=True)
class UnpairedSource:
    """Trials of which the fMRI alone is learned from.

    Args:
        data: The trial table's folder; None is the recipe's own table.
        parts: Parts of the split. `test` of the recipe's own split makes every report on it transductive; evaluation
            refuses pipelines that have learned from its test trials in any other way.
        split: Name of the split file; None is the recipe's for its own table and `default` for others.
        subjects: Names of the subjects; None takes the recipe's of its own table, and all of others.
    """

    data: Line | None = None
    parts: Names = field(default_factory=lambda: ["train"])
    split: Line | None = None
    subjects: Names | None = None

    def __post_init__(self) -> None:
        check_fields(vars(self), UnpairedSource, "unpaired.", "correct the recipe")

    def place(self, recipe: Any, table: TrialTable) -> tuple[TrialTable, str, int]:
        """Table, split and fold that the trials are of.

        Args:
            recipe: The recipe.
            table: The recipe's table.
        """
        if self.data is None:
            return table, self.split or recipe.split, recipe.fold
        return TrialTable.open(self.data), self.split or "default", 0


def unpaired_sources(values: Sequence[Mapping[str, Any]] | None) -> list[UnpairedSource]:
    """What a recipe means by a stage's `unpaired`.

    Raises:
        FmriModelsError: A key is unknown, or a value is of another type.
    """
    known = [each.name for each in fields(UnpairedSource)]
    for key in (key for source in values or [] for key in source):
        check_key(key, known, "unpaired")
    return [UnpairedSource(**source) for source in values or []]


def unpaired_tables(values: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Folders of the further tables."""
    return [source.data for source in unpaired_sources(values) if source.data is not None]


def table_name(folder: str | None) -> str | None:
    """What a table in a folder is called in records, which hold no paths; what is called so already, as it is."""
    if folder is None or not is_folder(folder):
        return folder
    table = TrialTable.open(folder)
    return f"{table.name} ({table.fingerprint})"


def unpaired_trials(recipe: Any, stage: Any, table: TrialTable, processor: FmriProcessor) -> list[TrialDataset]:
    """The examples of each further source of a stage.

    Those of another table have statistics of their own, by the recipe's options of the processor; its subjects are as
    wide as the model reads.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        table: The recipe's table.
        processor: The recipe's.

    Raises:
        FmriModelsError: There is no such table, subject, split or part, or its voxels do not fit the model's width.
    """
    found = []
    for source in unpaired_sources(stage.unpaired):
        of, split, fold = source.place(recipe, table)
        prepared = processor
        if source.data is not None:
            names = source.subjects or of.subjects
            prepared = fit_processor(of, names, source.parts, split, fold, (), **as_wide(recipe.processor, processor))
        subjects = processed_subjects(of, prepared, source.parts, split, fold, "single")
        if source.subjects is not None:
            subjects = [each for each in subjects if each.trials.subject in source.subjects]
        data = TrialDataset(subjects)
        if len(data) == 0:
            raise FmriModelsError(
                f"The stage {stage.name!r} has unpaired trials in {listed(source.parts)} of the split {split!r} of "
                f"{one_line(of.path)}, where there are none; choose other parts."
            )
        if prepared.width != processor.width:
            raise FmriModelsError(
                f"The subjects of {one_line(of.path)} are {prepared.width} columns wide and the model reads "
                f"{processor.width}; give the processor padding: wrap and a width for both."
            )
        found.append(data)
    return found


def as_wide(options: Mapping[str, Any], processor: FmriProcessor) -> dict[str, Any]:
    """Options of a processor whose columns are to be as many as another one's."""
    return {**options, "width": processor.width} if options.get("padding") == "wrap" else dict(options)
