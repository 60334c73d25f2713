"""Puts a folder on the Hub: a pipeline, a brain model, a processor, an image generator, a subject or a trial table."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..conversion_record import ConversionRecord
from ..data.card import data_card, permission_on_card
from ..data.hub import check_table, table_files, write_table_card
from ..data.schema import TABLE_FILE
from ..data.table import TrialTable
from ..data.without_pictures import without_pictures
from ..data_terms import DataTerms
from ..errors import FmriModelsError
from ..generation.generator_adapter import ADAPTER_FOLDER
from ..hub_repository import RepoType, list_files, upload
from ..known_classes import is_method_class
from ..names import one_line
from ..pipeline_folder import ADAPTER_KEY, INDEX_FILE, read_index
from ..processing.statistics_file import FORMER_STATISTICS_FILE
from ..provenance import (
    ACCOMPANYING_FILES,
    check_component_may_be_shared,
    check_origin_may_be_shared,
    check_weights_may_be_shared,
    published,
    terms_of_training,
)
from ..reading import parse_json, read_object, read_text
from ..remote_code import additions
from ..subject_folder import SUBJECT_FILE, SUBJECT_FILES, SubjectRecord
from ..training_record import TrainingRecord
from ..upload_checks import check_folder, check_upload
from .cards import CARD_FILE, has_card, write_card_of_folder
from .model_card import write_model_card
from .owner_statements import OwnerStatements

Format = Literal["pipeline", "brain model", "processor", "image generator", "subject", "trial table"]

_REPORT = "report.json"
_MODEL_CONFIG, _PROCESSOR_CONFIG = "config.json", "preprocessor_config.json"
_WEIGHTS_ENDING = ".safetensors"
# Where a component was loaded from, as earlier versions of this package and other libraries note it.
_PLACES = ("_name_or_path", "name_or_path")
# Whatever else lies beside a component is somebody's own.
_ENDINGS = (".json", ".txt", ".model", ".safetensors", ".st")
_SHOWING_STIMULI = ("grid.png", "report.html")


@dataclass(frozen=True)
class Publication:
    """What goes up of a folder.

    Args:
        folder: The folder.
        format: What it holds.
        files: Names of the files that go up, relative to it; one that is not written yet may be among them.
        additions: Name ▶ content of what goes up in a file's place, or besides.
        notes: What a person should know before, a sentence each.
    """

    folder: Path
    format: Format
    files: list[str]
    additions: Mapping[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        """Name ▶ bytes, sorted."""
        names = sorted({*self.files, *self.additions})
        return {name: self._size(name) for name in names}

    @property
    def repo_type(self) -> RepoType:
        """What the repository is."""
        return "dataset" if self.format == "trial table" else "model"

    def upload(self, repo_id: str, **options: Any) -> str:
        """Uploads it in one commit; the options are those of `hub_repository.upload`. Gives the commit's address."""
        message = options.pop("commit_message", None) or f"Upload {self.format}"
        files, added = self.files, dict(self.additions)
        if self.format in ("brain model", "processor") and self._is_beside_pipeline(repo_id, options):
            files = [name for name in files if name != CARD_FILE]
            added.pop(CARD_FILE, None)
        arguments = {"repo_type": self.repo_type, "additions": added, **options}
        return upload(self.folder, files, repo_id, message, **arguments).commit_url

    @staticmethod
    def _is_beside_pipeline(repo_id: str, options: Mapping[str, Any]) -> bool:
        """Whether a repository has a pipeline, whose card stays when a component alone goes there."""
        return INDEX_FILE in (list_files(repo_id, options.get("revision"), options.get("token")) or ())

    def _size(self, name: str) -> int:
        if name in self.additions:
            return len(self.additions[name])
        file = self.folder / name
        return file.stat().st_size if file.is_file() else 0


def publication(
    folder: Path,
    statements: OwnerStatements,
    unevaluated: bool = False,
    pictures: bool = False,
    write: bool = True,
    private: bool = False,
    leave_pictures_out: bool = False,
) -> Publication:
    """What would go up of a folder, checked; its card is written.

    Args:
        folder: The folder.
        statements: What its owner states.
        unevaluated: Whether a pipeline may go up that nobody has measured.
        pictures: Whether the pages of a report that show the stimuli go along although their terms are not known.
        write: Whether the card is written; it is left as it is where one only wants to know what would go up.

    Raises:
        FmriModelsError: It holds nothing of ours, a pipeline has no report, the terms of the data forbid it, or a file
            may not be published.
    """
    format = _format_of(folder)
    if format == "trial table":
        check_folder(folder)
        return _of_table(folder, statements, write, private, leave_pictures_out)
    if leave_pictures_out:
        raise FmriModelsError(
            f"{one_line(folder)} holds a {format}, and --without-pictures is for trial tables; of a pipeline, the "
            "pages that show stimuli go up only where their terms allow it."
        )
    if format == "pipeline":
        found = _of_pipeline(folder, statements, unevaluated, pictures, write)
    elif format == "subject":
        found = _of_subject(folder, statements, write)
    else:
        found = _of_component(folder, format, statements, write)
    check_folder(folder, found.additions)
    if not write:
        # Of what is uploaded, `upload` looks at it.
        check_upload(folder, found.files, found.additions)
    return found


def _format_of(folder: Path) -> Format:
    if not folder.is_dir():
        raise FmriModelsError(
            f"The folder {one_line(folder)} {'is a file' if folder.exists() else 'does not exist'}; give the folder of "
            "a saved pipeline, model, processor or image generator, or of a trial table."
        )
    if (folder / TABLE_FILE).is_file():
        return "trial table"
    if (folder / SUBJECT_FILE).is_file():
        return "subject"
    if (folder / INDEX_FILE).is_file():
        return "pipeline" if is_method_class(_index(folder).get("_class_name")) else "image generator"
    if (folder / _MODEL_CONFIG).is_file():
        return "brain model"
    if (folder / _PROCESSOR_CONFIG).is_file():
        return "processor"
    raise FmriModelsError(
        f"{one_line(folder)} holds neither a pipeline ({INDEX_FILE}) nor a model ({_MODEL_CONFIG}), a processor "
        f"({_PROCESSOR_CONFIG}) or a trial table ({TABLE_FILE}); give the folder that training or preparing wrote."
    )


def _index(folder: Path) -> dict[str, Any]:
    return read_object(folder / INDEX_FILE, "index", "save the pipeline again")


def _of_table(
    folder: Path, statements: OwnerStatements, write: bool, private: bool, leave_pictures_out: bool
) -> Publication:
    table = TrialTable.open(folder)
    metadata, pictures = table.metadata, not leave_pictures_out
    added: dict[str, bytes] = {}
    if write:
        write_table_card(folder, metadata, statements.permission, private, pictures)
    else:
        known = permission_on_card(folder / CARD_FILE) if (folder / CARD_FILE).is_file() else None
        check_table(folder, metadata, statements.permission or known, private, pictures)
        if statements.permission or not (folder / CARD_FILE).is_file():
            added = {CARD_FILE: data_card(metadata, statements.permission or known).encode()}
    if leave_pictures_out:
        added = {**added, **without_pictures(folder, metadata, statements.permission)}
    files = table_files(folder, metadata)
    if not write:
        check_upload(folder, files, added)
    return Publication(folder, "trial table", files, added, _notes_on_table(statements))


def _of_pipeline(
    folder: Path, statements: OwnerStatements, unevaluated: bool, pictures: bool, write: bool
) -> Publication:
    if not unevaluated and not (folder / _REPORT).is_file():
        raise FmriModelsError(
            f"{one_line(folder)} has no report, so that nobody could tell what it is worth; measure it with "
            "`fmri-models evaluate` and put the report beside it with `fmri-models card DIR --report REPORT.json`, or "
            "push it with --unevaluated: its card then says so."
        )
    record = TrainingRecord.load(folder)
    is_ours = not (folder / CARD_FILE).is_file() or has_card(folder)
    stated = (OwnerStatements.of_card(folder / CARD_FILE) if is_ours else OwnerStatements()).replaced_by(statements)
    terms = terms_of_training(record)
    check_weights_may_be_shared(terms, str(folder), stated.permission)
    check_origin_may_be_shared(ConversionRecord.load(folder), record, str(folder), stated.permission)
    card = _card(folder, lambda place: write_card_of_folder(place, statements), write)
    files = [name for name in ACCOMPANYING_FILES if (folder / name).is_file()]
    index = read_index(folder)
    for component in sorted(name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]):
        files += _saved_files(folder, component)
    files += _saved_files(folder, ADAPTER_FOLDER) if index.get(ADAPTER_KEY) else []
    kept = set(published(files, record)) | ({*files} & {*_SHOWING_STIMULI} if pictures else set())
    files = sorted({INDEX_FILE, CARD_FILE, *kept})
    added = {**_without_places(folder, files, additions(folder, files)), **card}
    notes = [*_notes(record, terms, stated), *_notes_on_generator(index)]
    return Publication(folder, "pipeline", files, added, notes)


def _of_component(folder: Path, format: Format, statements: OwnerStatements, write: bool) -> Publication:
    has_own_card = format != "image generator" and (folder / CARD_FILE).is_file()
    before = OwnerStatements.of_card(folder / CARD_FILE) if has_own_card else OwnerStatements()
    check_component_may_be_shared(folder, str(folder), before.replaced_by(statements).permission)
    if format == "image generator":
        index = _index(folder)
        files = [
            INDEX_FILE,
            *(name for part in index if (folder / part).is_dir() for name in _saved_files(folder, part)),
        ]
        files += [CARD_FILE] if (folder / CARD_FILE).is_file() else []
        notes = ["What is stated of licence, consent and permission stands on cards of pipelines and models alone."]
        ignored = notes if statements != OwnerStatements() else []
        return Publication(folder, format, sorted(files), _without_places(folder, files, {}), ignored)
    card = _card(folder, lambda place: write_model_card(place, statements), write)
    files = sorted({CARD_FILE, *(path.name for path in folder.iterdir() if _is_saved(path))})
    stated = OwnerStatements.of_card(folder / CARD_FILE).replaced_by(statements)
    added = {**_without_places(folder, files, additions(folder, files)), **card}
    return Publication(folder, format, files, added, _notes(None, None, stated))


def _of_subject(folder: Path, statements: OwnerStatements, write: bool) -> Publication:
    SubjectRecord.of_folder(folder)
    record = TrainingRecord.load(folder)
    before = OwnerStatements.of_card(folder / CARD_FILE) if (folder / CARD_FILE).is_file() else OwnerStatements()
    stated = before.replaced_by(statements)
    terms = terms_of_training(record)
    check_weights_may_be_shared(terms, str(folder), stated.permission)
    check_origin_may_be_shared(ConversionRecord.load(folder), record, str(folder), stated.permission)
    card = _card(folder, lambda place: write_model_card(place, statements), write)
    files = sorted({CARD_FILE, *(name for name in SUBJECT_FILES if (folder / name).is_file())})
    added = {**_without_places(folder, files, {}), **card}
    return Publication(folder, "subject", files, added, _notes(record, terms, stated))


def _card(folder: Path, write_card: Callable[[Path], object], write: bool) -> dict[str, bytes]:
    """Writes the card; where nothing is written, it is what goes up in its place, made of all but the weights."""
    if write:
        write_card(folder)
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / (folder.resolve().name or "folder")
        for file in folder.rglob("*"):
            is_weights = file.suffix == _WEIGHTS_ENDING and file.name != FORMER_STATISTICS_FILE
            if file.is_file() and (_is_saved(file) or file.name == CARD_FILE) and not is_weights:
                place = copy / file.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
        for name in ACCOMPANYING_FILES:
            if (folder / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, copy / name)
        write_card(copy)
        return {CARD_FILE: (copy / CARD_FILE).read_bytes()}


def _without_places(folder: Path, files: Sequence[str], added: Mapping[str, bytes]) -> dict[str, bytes]:
    """What is added, and configurations that say where somebody has loaded them from without that."""
    mended = dict(added)
    for name in files:
        if not name.endswith(".json") or name in ACCOMPANYING_FILES:
            continue
        text = added[name].decode() if name in added else read_text(folder / name, "file", "save it again")
        if not any(f'"{key}"' in text for key in _PLACES):
            continue
        values = parse_json(text, str(one_line(folder / name)), "save it again")
        if isinstance(values, dict) and values.keys() & {*_PLACES}:
            kept = {key: value for key, value in values.items() if key not in _PLACES}
            mended[name] = (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()
    return mended


def _saved_files(folder: Path, component: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted((folder / component).rglob("*")) if _is_saved(path)]


def _is_saved(path: Path) -> bool:
    return path.is_file() and path.suffix in _ENDINGS and not path.name.startswith(".")


def _notes(record: TrainingRecord | None, terms: DataTerms | None, stated: OwnerStatements) -> list[str]:
    notes = []
    if not stated.license:
        notes.append("No licence of the weights is stated, and the card says so (--licence).")
    if (record is None or not record.simulated) and not stated.consent:
        notes.append(
            "Nobody has stated whose consent covers that these weights are published, and the card says so "
            "(--consent): layers that were trained on a person's brain activity are that person's data."
        )
    if terms is not None and terms.weights == "unclear":
        notes.append(
            f"The terms of {terms.title} do not say whether weights that were trained on it may be shared"
            f"{f'; read them: {terms.url}' if terms.url else ''}."
        )
    return notes


def _notes_on_generator(index: Mapping[str, Any]) -> list[str]:
    """Says so where a pipeline draws with what lies in a folder here, which nobody else has."""
    source = index.get("image_generator_source")
    repository = source.get("repository") if isinstance(source, Mapping) else None
    if not isinstance(repository, str) or not repository.startswith(("./", "../")):
        return []
    return [
        f"The pipeline names its image generator by a folder beside it ({one_line(repository, 120)}), which nobody "
        "else has, so that others can decode and not draw; load it with image_generator_source= a repository and save "
        "it again."
    ]


def _notes_on_table(statements: OwnerStatements) -> list[str]:
    if not (statements.license or statements.consent):
        return []
    return [
        "Licence and consent are stated of weights; a trial table has its licence in table.json, and its card that."
    ]
