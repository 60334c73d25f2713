"""Writing a trial table: checked while it is written, visible only once it is complete."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from ..errors import FmriModelsError
from ..in_memory import as_numbers
from ..names import check_line, check_name, listed
from ..output_folders import TRIAL_TABLE, check_output_folder
from ..saving import atomic_folder
from ..version import __version__
from . import schema
from .card import data_card
from .metadata import check_metadata
from .split_files import check_disjoint, check_split_rows, split_table
from .stimulus_writer import StimulusWriter
from .subject_writer import SubjectWriter, finite_betas
from .table_files import TableFiles, checked_json, checked_text
from .table_voxels import voxels_table
from .training_checks import Shown, TrainingChecks
from .windows import Windows, check_windows, over_window, place_axis

_RESERVED = {
    "schema", "name", "simulated", "description", "license", "source", "package_version", "created_by",
    "default_split", "subjects", "num_voxels", "trials", "image_channels", "files", schema.FINDINGS, "modality",
    "windows", "cautions",
}  # fmt: skip


class TrialTableWriter:
    """Writes a trial table; the folder appears complete, when the `with` block ends, or not at all.

    ```python
    with TrialTableWriter("my_table", name="mine") as writer:
        writer.add_stimuli([{"stimulus_id": "cat", "image": picture, "captions": ["a cat"]}])
        writer.add_trials("subj01", "train", stimulus_ids=["cat", "cat"], fmri=betas)
    ```

    Betas are stored as the float32 numbers that they are; as float16, in half the space, where float16 holds every one
    of the subject exactly. They are buffered on disk until the end, because that can only be known then.

    Args:
        path: The folder to be written.
        name: The table's name, as reports print it.
        simulated: Whether the responses come from a simulator.
        description: What the data are, for the card.
        license: A licence's id (`cc0-1.0`) or a sentence.
        source: Where the data come from: a citation or an address.
        overwrite: Replace a folder that has content.
        repeats_stimuli: A sentence that says why stimuli are in several parts of the default split by the design's
            nature (object categories over runs, say). Empty: a picture in two parts is refused.
        created_by: What wrote the table, such as a command line.
        inputs: Files and folders that are read meanwhile; a folder to be written that is, contains or lies in one is
            refused.
        modality: What was recorded: "fmri" or "eeg".
        cautions: What the design of the experiment does to results, one sentence each, which every report repeats.

    Attributes:
        extra: Anything that JSON takes; its keys become keys of `table.json`.
        findings: Once the table is written, what training would refuse of it or learn wrong, one sentence each;
            `table.json` says it too.
        notes: Once the table is written, what is worth knowing of it and nothing wrong.
    """

    def __init__(
        self,
        path: str | Path,
        name: str,
        simulated: bool = False,
        description: str = "",
        license: str = "",
        source: str = "",
        overwrite: bool = False,
        repeats_stimuli: str = "",
        created_by: str = "",
        inputs: Iterable[str | Path] = (),
        modality: str = "fmri",
        cautions: Iterable[str] = (),
    ) -> None:
        if modality not in schema.MODALITIES:
            raise FmriModelsError(f"The modality is {modality!r}; expected one of {', '.join(schema.MODALITIES)}.")
        self.path = Path(path)
        self.modality = modality
        self.cautions = [check_line(caution, "caution of the table") for caution in cautions]
        self.overwrite = overwrite
        self.inputs = tuple(inputs)
        self.repeats_stimuli = check_line(repeats_stimuli, "reason for repeated stimuli")
        self.extra: dict[str, object] = {}
        self.findings: list[str] = []
        self.notes: list[str] = []
        self._about = {
            "name": check_line(name, "trial table's name", most=200),
            "simulated": bool(simulated),
            "description": checked_text(description, "description of the table"),
            "license": check_line(license, "licence of the table"),
            "source": check_line(source, "source of the table"),
        }
        self._created_by = check_line(created_by, "command") or "fmri_models.data.TrialTableWriter"
        self._stack = ExitStack()
        self._checks = TrainingChecks()
        self._files = TableFiles(self._about)
        self._stimuli = StimulusWriter(self._files, self._checks)
        self._subjects: dict[str, SubjectWriter] = {}
        self._splits: dict[str, tuple[pa.Table, str]] = {}
        self._windows: Windows | None = None
        check_output_folder(self.path, overwrite, TRIAL_TABLE, self.inputs)

    def __enter__(self) -> "TrialTableWriter":
        folder = atomic_folder(self.path, self.overwrite, TRIAL_TABLE, self.inputs)
        self._files.begin(self._stack.enter_context(folder))
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The stack is closed by whatever is raised here too, so that atomic_folder removes what was begun.
        with self._stack:
            if error is not None:
                raise error
            self._finish()

    def add_stimuli(self, records: Iterable[Mapping]) -> None:
        """Adds stimuli, each picture once.

        Args:
            records: Dicts with `stimulus_id` and, where known, `image` (PIL image, bytes of an image file, uint8 array
                or None), `captions` (list of str), `category` (str), `factors` (dict that JSON takes), and of a
                stimulus that moves `clip`: a dict with `file` (str), `start` and `seconds` (of the clip in it) and
                `frames` (pictures), each where known. `image` is then the picture that stands for the clip.

        Raises:
            FmriModelsError: An id is used twice or can't be a file name, or a picture can't be decoded.
        """
        for record in records:
            self._stimuli.add(record)

    @property
    def content_hashes(self) -> Mapping[str, str | None]:
        """Stimulus id ▶ hash of its pixels, None where the picture is not there, of those that were added so far."""
        return self._stimuli.contents

    def add_voxels(
        self,
        subject: str,
        num_voxels: int,
        roi: Sequence[str] | None = None,
        coordinates: np.ndarray | None = None,
        ncsnr: np.ndarray | None = None,
        noise_ceiling: np.ndarray | None = None,
        source: str | None = None,
        repetitions: int = 3,
        space: str = "",
        source_columns: np.ndarray | None = None,
        source_width: int | None = None,
    ) -> None:
        """Adds what is known of a subject's voxels, in the order of the betas' columns.

        Args:
            subject: The subject's id.
            num_voxels: How many voxels the subject has; of windows, how many values a window has, or how many voxels or
                channels, of which all else is then said once for all samples.
            roi: (num_voxels,) labels; empty (or None, or NaN) where a voxel is in no region.
            coordinates: (num_voxels, 3) in mm; NaN where unknown.
            ncsnr: (num_voxels,) noise-ceiling signal-to-noise ratio; NaN where unknown.
            noise_ceiling: (num_voxels,) as a fraction of variance; from `ncsnr` where it is not given.
            source: Where the ceiling comes from: "simulated truth", "training repetitions" or "release".
            repetitions: How many averaged repetitions the ceiling is for.
            space: The coordinates' space.
            source_columns: (num_voxels,) which columns of the betas as they were recorded these are, ascending, where
                some were dropped; a processor then takes patterns of both widths.
            source_width: How many columns those had.

        Raises:
            FmriModelsError: Lengths differ from `num_voxels`, or the source is another one.
        """
        check_name(subject, "subject")
        shape = None if self._windows is None else self._windows.shapes.get(subject)
        if self._windows is not None and shape is not None and num_voxels == shape[place_axis(self._windows.axes)]:
            spread = partial(over_window, shape=shape, axes=self._windows.axes)
            roi, coordinates = spread(None if roi is None else list(roi)), spread(coordinates)
            ncsnr, noise_ceiling = spread(ncsnr), spread(noise_ceiling)
            num_voxels = shape[0] * shape[1]
        of_subject = self._subject(subject, num_voxels)
        of_subject.voxels = voxels_table(
            subject, num_voxels, roi, coordinates, ncsnr, noise_ceiling, source, repetitions, space, source_columns,
            source_width,
        )  # fmt: skip

    def add_windows(self, subject: str, shape: Sequence[int], windows: Windows | None = None) -> None:
        """Says that a subject's trials are windows of a recording; call it before its trials and voxels are added.

        Args:
            subject: The subject's id.
            shape: Lengths of the two axes.
            windows: What they are, the same of all subjects; its own shapes are not read.

        Raises:
            FmriModelsError: The shape is none, or windows differ from those of another subject.
        """
        check_name(subject, "subject")
        about = windows or self._windows or Windows()
        check_windows(about, subject)
        sizes = tuple(int(size) for size in shape)
        if len(sizes) != 2 or min(sizes) < 1:
            raise FmriModelsError(f"The windows of {subject} have the shape {sizes}; expected two lengths, from 1 on.")
        known = {} if self._windows is None else dict(self._windows.shapes)
        if self._windows is not None and replace(about, shapes={}) != replace(self._windows, shapes={}):
            raise FmriModelsError(
                f"The windows of {subject} are others than those of {listed(known)}; a table has one kind of windows."
            )
        self._windows = replace(about, shapes={**known, subject: (sizes[0], sizes[1])})

    def add_trials(
        self,
        subject: str,
        split: str,
        stimulus_ids: Sequence[str],
        fmri: np.ndarray | Iterable[np.ndarray],
        sessions: Sequence[int] | None = None,
        runs: Sequence[int] | None = None,
        trials: Sequence[int] | None = None,
        repetitions: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        imagery: Sequence[bool] | None = None,
    ) -> None:
        """Adds trials of one subject to one part of the default split.

        Args:
            subject: The subject's id.
            split: "train", "validation" or "test"; or "unlabelled", of trials without a stimulus, whose ids are empty.
            stimulus_ids: (n,) ids of what was shown; `add_stimuli` has to name them, before or after.
            fmri: (n, voxels) betas, or an iterator of chunks of them, which then needn't fit into memory; of a subject
                with windows ([`add_windows`]) also (n, time, voxels) or (n, channels, time).
            sessions: (n,) whole numbers; 1 where they are not given.
            runs: (n,) whole numbers; 1 where they are not given.
            trials: (n,) whole numbers, unique within the subject; counted on where they are not given.
            repetitions: (n,) whole numbers from 0; counted per subject and stimulus where they are not given.
            blocks: (n,) whole numbers, which block of its run each trial is of; the column is left out where no
                trials of the subject have any.
            imagery: (n,) bool, whether the stimulus was imagined and not shown; likewise.

        Raises:
            FmriModelsError: Lengths or widths differ, a value is NaN or infinite, or the split is an unknown one.
        """
        check_name(subject, "subject")
        if subject == schema.STIMULI_FOLDER:
            raise FmriModelsError("A subject can't be called 'stimuli': the data set card uses that name; rename it.")
        if split not in schema.FILE_PARTS:
            raise FmriModelsError(f"The split is {split!r}; expected one of {', '.join(schema.FILE_PARTS)}.")
        if split == schema.UNLABELLED:
            if any(stimulus != "" for stimulus in stimulus_ids):
                raise FmriModelsError(f"Unlabelled trials of {subject} have stimulus ids; expected empty ones.")
            ids = [""] * len(stimulus_ids)
        else:
            ids = [check_name(str(stimulus), "stimulus id") for stimulus in stimulus_ids]
        chunks = _chunks(fmri, None if self._windows is None else self._windows.shapes.get(subject))
        first = next(chunks, None)
        if first is None:
            if ids:
                raise FmriModelsError(f"{subject}, {split}: no betas for {len(ids)} trials.")
            return
        of_subject = self._subject(subject, first.shape[1])
        seen = self._checks.passing(subject, split, chain([first], chunks))
        of_subject.add(split, ids, seen, sessions, runs, trials, repetitions, blocks, imagery)

    def add_noise_free(self, subject: str, stimulus_ids: Sequence[str], fmri: np.ndarray) -> None:
        """Adds a simulated subject's responses without noise, (stimuli, voxels)."""
        check_name(subject, "subject")
        values = finite_betas(as_numbers(fmri, "Noise-free responses"), f"noise-free responses of {subject}")
        of_subject = self._subject(subject, values.shape[1])
        if len(values) != len(stimulus_ids):
            raise FmriModelsError(
                f"{subject} has {len(values)} noise-free responses for {len(stimulus_ids)} stimulus ids."
            )
        ids = [check_name(str(stimulus), "stimulus id") for stimulus in stimulus_ids]
        of_subject.add_noise_free(ids, values)

    def add_split(
        self,
        name: str,
        rows: Mapping[str, Sequence] | Sequence[Mapping] | pa.Table,
        by: str,
        seed: int | None = None,
        repeats_stimuli: str = "",
    ) -> None:
        """Adds a further split.

        Args:
            name: The split's name; "default" is written from the trials themselves.
            rows: `fold, subject, trial, stimulus_id, split` as columns, as records or as an Arrow table.
            by: What it is split by ("stimulus", "kfold", "run", "semantic" ...).
            seed: The seed that drew it.
            repeats_stimuli: A sentence that says why stimuli are in several parts; empty where none is.

        Raises:
            FmriModelsError: The name is taken. The rows themselves are checked at the end, when all trials are known.
        """
        check_name(name, "split name")
        if name == schema.DEFAULT_SPLIT or name in self._splits:
            raise FmriModelsError(f"There is a split named {name!r} already; choose another name.")
        self._splits[name] = (split_table(rows, by, seed, repeats_stimuli), repeats_stimuli)

    def _subject(self, subject: str, num_voxels: int) -> SubjectWriter:
        if not 1 <= num_voxels <= schema.MAX_VOXELS:
            raise FmriModelsError(f"{subject} has {num_voxels} voxels; expected 1 to {schema.MAX_VOXELS}.")
        known = self._subjects.get(subject) or self._subjects.setdefault(
            subject, SubjectWriter(subject, num_voxels, self._files)
        )
        if known.num_voxels != num_voxels:
            raise FmriModelsError(
                f"{subject} has {num_voxels} voxels here and {known.num_voxels} before; expected one width a subject."
            )
        return known

    def _finish(self) -> None:
        self._check_content()
        shown = {
            name: {part: Shown(columns["trial"], columns["stimulus_id"]) for part, columns in each.columns.items()}
            for name, each in self._subjects.items()
        }
        self.findings, self.notes = self._checks.findings(shown), self._checks.notes()
        self._stimuli.finish()
        for subject, each in sorted(self._subjects.items()):
            if each.voxels is None:
                self.add_voxels(subject, each.num_voxels)
            each.finish()
        for name, (table, _) in sorted({**self._splits, schema.DEFAULT_SPLIT: self._default_split()}.items()):
            self._files.write(table, f"{schema.SPLITS_FOLDER}/{name}.parquet")
        folder = self._files.end()
        metadata = self._metadata()
        (folder / "README.md").write_text(data_card(metadata), encoding="utf-8")
        check_metadata(metadata, "The trial table")
        text = checked_json(metadata, "table's own values", indent=2)
        (folder / schema.TABLE_FILE).write_text(text + "\n", encoding="utf-8")

    def _check_content(self) -> None:
        if not self._subjects:
            raise FmriModelsError(f"The trial table {self._about['name']!r} has no trials; add some.")
        for subject, each in self._subjects.items():
            if not any(each.columns[part]["trial"] for part in schema.FILE_PARTS):
                raise FmriModelsError(f"{subject} has no trials; add some, or leave the subject out.")
        if clash := _RESERVED & self.extra.keys():
            raise FmriModelsError(f"The extra keys {sorted(clash)} belong to the table itself; rename them.")
        for subject, each in self._subjects.items():
            used = [*each.noise_free, *(i for part in schema.SPLITS for i in each.columns[part]["stimulus_id"])]
            if missing := sorted(set(used) - self._stimuli.contents.keys()):
                raise FmriModelsError(
                    f"{subject} has trials of {len(missing)} stimuli that the table doesn't have "
                    f"({listed(missing)}); add them, with image=None where the picture can't be given."
                )
        default, repeats = self._default_split()
        if not repeats:
            check_disjoint(default, self._stimuli.contents, schema.DEFAULT_SPLIT)
        for name, (table, repeats) in self._splits.items():
            self._check_split_rows(name, table)
            if not repeats:
                check_disjoint(table, self._stimuli.contents, name)

    def _check_split_rows(self, name: str, table: pa.Table) -> None:
        shown = {
            (subject, trial): stimulus
            for subject, each in self._subjects.items()
            for part in schema.SPLITS
            for trial, stimulus in zip(each.columns[part]["trial"], each.columns[part]["stimulus_id"], strict=True)
        }
        check_split_rows(name, table, shown)

    def _default_split(self) -> tuple[pa.Table, str]:
        columns: dict[str, list] = {"subject": [], "trial": [], "stimulus_id": [], "split": []}
        for subject, each in sorted(self._subjects.items()):
            for part in schema.SPLITS:
                of_part = each.columns[part]
                columns["subject"] += [subject] * len(of_part["trial"])
                columns["trial"] += of_part["trial"]
                columns["stimulus_id"] += of_part["stimulus_id"]
                columns["split"] += [part] * len(of_part["trial"])
        fold = np.zeros(len(columns["trial"]), dtype=np.int32)
        by = "the table's own files"
        return split_table({"fold": fold, **columns}, by, None, self.repeats_stimuli), self.repeats_stimuli

    def _metadata(self) -> dict:
        trials = {
            subject: {
                part: len(each.columns[part]["trial"])
                for part in schema.FILE_PARTS
                if part in schema.SPLITS or each.columns[part]["trial"]
            }
            for subject, each in sorted(self._subjects.items())
        }
        return {
            "schema": schema.SCHEMA_VERSION,
            **self._about,
            "package_version": __version__,
            "created_by": self._created_by,
            "default_split": schema.DEFAULT_SPLIT,
            "subjects": sorted(self._subjects),
            "num_voxels": {subject: each.num_voxels for subject, each in sorted(self._subjects.items())},
            "trials": trials,
            "image_channels": self._stimuli.channels,
            **({"modality": self.modality} if self.modality != "fmri" else {}),
            **({"windows": self._windows.to_metadata()} if self._windows is not None else {}),
            **({"cautions": self.cautions} if self.cautions else {}),
            **({schema.FINDINGS: self.findings} if self.findings else {}),
            **self.extra,
            "files": dict(sorted(self._files.recorded.items())),
        }


def _chunks(fmri: np.ndarray | Iterable[np.ndarray], window: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    for chunk in [fmri] if hasattr(fmri, "shape") else fmri:
        chunk = as_numbers(chunk, "Betas")
        if window is not None and chunk.ndim == 3 and chunk.shape[1:] == window:
            chunk = chunk.reshape(len(chunk), -1)
        if chunk.ndim != 2:
            expected = "(trials, voxels)" if window is None else f"(trials, {window[0]}, {window[1]})"
            hint = "; windows of a recording are first described with add_windows" if window is None else ""
            raise FmriModelsError(f"Betas have the shape {chunk.shape}; expected {expected}{hint}.")
        yield chunk
