"""What a saved pipeline came with: card, records and report, which go along for as long as they are true."""

import copy
import filecmp
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .component_index import CARD_FILE
from .conversion_record import ConversionRecord
from .data_terms import DataTerms, terms_of
from .errors import FmriModelsError
from .loaded_components import LoadedComponents, have_same_values
from .modeling_fmri import INDEX_FILE
from .names import one_line
from .reading import MEBIBYTE, read_bytes, read_object
from .registry import card_writer
from .subject_modules import former_names
from .swapping import EVAL_RESULTS_FILE
from .training_record import CHANGED_LATER, GIVEN_LATER, TRAINING_FILE, WITH_ADAPTER, TrainingRecord, later_subject
from .weights import CONFIG_FILE, MEND

LIBRARY = "fmri_models"
REPORT_FILES = ("report.json", "report.md", "report.html", "grid.png", EVAL_RESULTS_FILE)
# What is published with a pipeline and is no component of it.
ACCOMPANYING_FILES = (CARD_FILE, TRAINING_FILE, ConversionRecord.file, *REPORT_FILES)
_SHOWING_STIMULI = ("report.html", "grid.png")
_MAX_ACCOMPANYING_BYTES = 64 * MEBIBYTE
_CARD_HEADER_BYTES = 2**16


@dataclass
class Provenance:
    """Where a pipeline comes from; of one that was not loaded, nothing is known.

    Args:
        files: What lay beside its components, by name.
        training_record: How it was trained; None where that is not known.
        components: What its components were, of which the files speak; None for a pipeline that was not loaded.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    training_record: TrainingRecord | None = None
    components: LoadedComponents | None = None
    # The card among the files still has the figures that it came with.
    is_disclaimed: bool = False

    @classmethod
    def read(cls, folder: Path, other_brain_model: bool = False) -> "Provenance":
        """That of a saved pipeline; of weights that came later, the record says that nobody knows what they learned.

        Args:
            folder: The pipeline's folder.
            other_brain_model: Whether the caller gives another model in the place of the saved one.
        """
        files = {
            name: read_bytes(folder / name, "file", "remove or replace it", _MAX_ACCOMPANYING_BYTES)
            for name in ACCOMPANYING_FILES
            if (folder / name).is_file()
        }
        record = TrainingRecord.load(folder)
        if record is not None and other_brain_model:
            record.add_unknown(GIVEN_LATER)
        if record is not None and (record.unknown_initial_models or record.names_places):
            files[TRAINING_FILE] = record.to_json().encode()
        return cls(files, record)

    def copy(self) -> "Provenance":
        """The same for another pipeline of these components, which may change and disclaim it by itself."""
        return replace(self, files=dict(self.files), training_record=copy.deepcopy(self.training_record))

    def changed(self, now: LoadedComponents) -> set[str]:
        """Names of the components that are others now."""
        return set() if self.components is None else self.components.changed(now)

    def disclaim(self, changed: Set[str], has_adapter: bool) -> None:
        """Parts with the report that measured other components, and notes weights that came after the training.

        Args:
            changed: Names of the components that are others now.
            has_adapter: Whether the brain model has an adapter.
        """
        for name in REPORT_FILES:
            self.files.pop(name, None)
        self.is_disclaimed = True
        record = self.training_record
        if record is not None and "brain_model" in changed:
            if has_adapter:
                record.add_unknown(WITH_ADAPTER)
            elif GIVEN_LATER not in record.unknown_initial_models:
                record.add_unknown(CHANGED_LATER)
            self.files[TRAINING_FILE] = record.to_json().encode()

    def note_subject(
        self, name: str, record: TrainingRecord | None = None, conversion: ConversionRecord | None = None
    ) -> None:
        """Notes a subject that was added, of which the report does not speak.

        Args:
            name: The subject.
            record: How the pipeline was trained that it was saved from, which has the same base; None where that is not
                known. Where nothing is known of this pipeline's training, it is what is known.
            conversion: What that pipeline was converted from; None where it was not, or where that is not known.
        """
        self.disclaim(set(), has_adapter=False)
        if conversion is not None and ConversionRecord.file not in self.files:
            self.files[ConversionRecord.file] = conversion.to_json().encode()
        if self.training_record is None and record is not None:
            self.training_record = copy.deepcopy(record)
        elif self.training_record is not None and record is not None:
            self.training_record.add_trainings(record)
        if self.training_record is not None:
            self.training_record.add_unknown(later_subject(name))
            self.files[TRAINING_FILE] = self.training_record.to_json().encode()

    def write(self, partial: Path, folder: Path) -> None:
        """Writes the files of a pipeline that is being saved; a README.md of somebody else stays.

        Args:
            partial: Where they are written.
            folder: Where they will be.
        """
        for name, data in self.files.items():
            if name != CARD_FILE or not _is_foreign_card(folder / CARD_FILE):
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_bytes(data)


def replaced_components(partial: Path, folder: Path) -> set[str]:
    """Names of the components whose weights in a folder are replaced by others, of which no report there speaks.

    Args:
        partial: Where the weights are written.
        folder: Where they will be.
    """
    names = (file.relative_to(partial) for file in sorted(partial.rglob("*.safetensors")))
    return {
        name.parts[0] for name in names if (folder / name).is_file() and not _are_same(partial / name, folder / name)
    }


def disclaim_record(partial: Path, folder: Path) -> None:
    """Notes in a folder's record that its weights came later; its terms stay, as nobody knows what they learned from.

    Args:
        partial: Where it is written.
        folder: Where it will be.
    """
    record = TrainingRecord.load(folder)
    if record is not None:
        record.add_unknown(CHANGED_LATER)
        record.save(partial)


def write_card_again(partial: Path, folder: Path) -> None:
    """Writes the model card anew, without figures, if there is one; who has the weights has stated their licence.

    Args:
        partial: Where it is written.
        folder: Where it will be.
    """
    card = partial / CARD_FILE
    if not card.is_file() and (folder / CARD_FILE).is_file() and not _is_foreign_card(folder / CARD_FILE):
        card.write_bytes((folder / CARD_FILE).read_bytes())
    if card.is_file():
        card_writer()(partial)


def published(files: Sequence[str], record: TrainingRecord | None = None) -> list[str]:
    """What goes to the Hub: the pages of a report that show the stimuli only where these may be passed on."""
    return [name for name in files if name not in _SHOWING_STIMULI or may_show_stimuli(record)]


def may_show_stimuli(record: TrainingRecord | None) -> bool:
    """Whether the pictures of the data that a pipeline was trained on may be passed on; not where it is not known."""
    terms = None if record is None else terms_of(record.table, record.table_license, record.table_source)
    return terms is not None and terms.stimuli == "allowed"


def terms_of_training(record: TrainingRecord | None) -> DataTerms | None:
    """What is known of the terms of all data that lie behind a pipeline: those that allow least.

    These are the data of its own training and of those before it: of initial models, of further tables that it was
    trained with, of fMRI without pictures, and of subjects that were added.
    """
    if record is None:
        return None
    tables = [(each.table, each.table_license, each.table_source) for each in record.learned_from or []]
    tables = list(dict.fromkeys([(record.table, record.table_license, record.table_source), *tables]))
    found = [terms for terms in (terms_of(*table) for table in tables) if terms is not None]
    # Of data sets that allow the same, the own one is named.
    return min(found, key=_how_much_is_allowed, default=None)


def _how_much_is_allowed(terms: DataTerms) -> tuple[int, int]:
    weights, redistribution = ("forbidden", "unclear", "allowed"), ("forbidden", "unknown", "allowed")
    return weights.index(terms.weights), redistribution.index(terms.redistribution)


def check_weights_may_be_shared(terms: DataTerms | None, what: str, permission: str | None) -> None:
    """Refuses weights where the terms of what they have learned from forbid that they are passed on.

    Args:
        terms: Those of the data; None where none are known.
        what: What the weights are, for the sentence.
        permission: Which written permission there is; None where there is none.

    Raises:
        FmriModelsError: They forbid it, and there is none.
    """
    if terms is None or terms.weights != "forbidden" or permission:
        return
    at = f" ({terms.url})" if terms.url else ""
    raise FmriModelsError(
        f"{one_line(what)} was trained on {terms.title}, whose terms{at} forbid that trained weights are passed on, "
        "also to a private repository; whoever has a written permission names it (--permission, permission= in Python) "
        "and the card keeps it."
    )


def check_origin_may_be_shared(
    conversion: ConversionRecord | None, record: TrainingRecord | None, what: str, permission: str | None
) -> None:
    """Refuses weights that were made of published ones whose authors have reserved all rights.

    Args:
        conversion: What they were converted from; None where they were not.
        record: How they were trained; None where that is not known.
        what: What the weights are, for the sentence.
        permission: Which written permission there is; None where there is none.

    Raises:
        FmriModelsError: They were, and there is none.
    """
    converted = conversion is not None and not conversion.may_be_shared
    began_with = [] if record is None else record.reserved_initial_models
    if permission or not (converted or began_with):
        return
    made = "was converted from published weights" if converted else f"was trained from {one_line(began_with[0], 120)}"
    raise FmriModelsError(
        f"{one_line(what)} {made}, whose authors state no licence and so reserve all rights, also in a private "
        "repository; whoever has their written permission names it (--permission, permission= in Python) and the card "
        "keeps it."
    )


def record_around(component: Path) -> TrainingRecord | None:
    """The training record of the pipeline that a component's folder lies in; None where that is not known."""
    pipeline = component.absolute().parent
    return TrainingRecord.load(pipeline) if (pipeline / INDEX_FILE).is_file() else None


def check_component_may_be_shared(component: Path, what: str, permission: str | None) -> None:
    """Refuses a component of a pipeline as [`check_weights_may_be_shared`] does the whole.

    Args:
        component: Its folder inside of the pipeline's.
        what: What it is, for the sentence.
        permission: Which written permission there is; None where there is none.

    Raises:
        FmriModelsError: The terms of what it has learned from, or the authors of what it was made of, forbid it.
    """
    pipeline = component.absolute().parent
    if (pipeline / INDEX_FILE).is_file():
        check_origin_may_be_shared(ConversionRecord.load(pipeline), TrainingRecord.load(pipeline), what, permission)
    check_weights_may_be_shared(terms_of_training(record_around(component)), what, permission)


def permission_on_card(folder: Path) -> str | None:
    """The written permission that a pipeline's card names."""
    if not (folder / CARD_FILE).is_file() or _is_foreign_card(folder / CARD_FILE):
        return None
    header = _card_header(folder / CARD_FILE)
    found = re.search(r"^redistribution_permission:\s*(\S.*)$", header, re.MULTILINE)
    return found[1] if found else None


def _are_same(weights: Path, older: Path) -> bool:
    """Whether weights are those of an older file, but for their precision; what can't be read is other than any."""
    if filecmp.cmp(weights, older, shallow=False):
        return True
    try:
        with safe_open(weights, "pt") as now, safe_open(older, "pt") as before:
            names = {name: name for name in now.keys()}  # noqa: SIM118 (no mapping)
            if names.keys() != set(before.keys()):
                former = former_names(names, _subjects_of(older.parent))
                # Those of layers that are no subject's stay as they were.
                names = {name: former.get(name, name) for name in before.keys()}  # noqa: SIM118
            return set(names.values()) == set(now.keys()) and all(
                have_same_values(before.get_tensor(name), now.get_tensor(today))
                for name, today in sorted(names.items())
            )
    except SafetensorError:
        return False


def _subjects_of(folder: Path) -> list[str]:
    """Names of the subjects that a saved brain model has; none where nothing says so."""
    if not (folder / CONFIG_FILE).is_file():
        return []
    names = read_object(folder / CONFIG_FILE, "configuration", MEND).get("subject_names")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _is_foreign_card(path: Path) -> bool:
    """Whether there is a README.md that is no card of this package."""
    if not path.is_file():
        return False
    return re.search(rf"^library_name: {LIBRARY}$", _card_header(path), re.MULTILINE) is None


def _card_header(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_CARD_HEADER_BYTES).decode("utf-8", errors="replace")
