"""Writing a trial table: checked while it is written, visible only once it is complete."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..in_memory import as_numbers, unmasked
from ..names import check_line, check_name, listed, one_line
from ..output_folders import TRIAL_TABLE, check_output_folder
from ..reading import parse_json
from ..saving import atomic_folder
from ..version import __version__
from . import schema
from .card import data_card
from .metadata import check_metadata
from .noise_ceiling import noise_ceiling_from_ncsnr
from .parquet import file_sha256
from .pictures import content_sha256, encode_picture, picture_format, read_picture
from .split_files import check_disjoint, check_split_rows, split_table
from .training_checks import Shown, TrainingChecks

ROW_GROUP = 256
ROWS_PER_FILE = 4096
_PICTURES_PER_ROW_GROUP = 64
_PICTURES_PER_FILE = 4096
# Of large pictures there are fewer in a file, so that neither writer nor reader holds gigabytes of them.
_BYTES_PER_ROW_GROUP = 2**28
_BYTES_PER_FILE = 2**29
_BUFFER_FOLDER = ".buffer"
_MOST_TEXT = 100_000
_RESERVED = {
    "schema", "name", "simulated", "description", "license", "source", "package_version", "created_by",
    "default_split", "subjects", "num_voxels", "trials", "image_channels", "files", schema.FINDINGS,
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
    ) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self.inputs = tuple(inputs)
        self.repeats_stimuli = check_line(repeats_stimuli, "reason for repeated stimuli")
        self.extra: dict[str, object] = {}
        self.findings: list[str] = []
        self.notes: list[str] = []
        self._about = {
            "name": check_line(name, "trial table's name", most=200),
            "simulated": bool(simulated),
            "description": _text(description, "description of the table"),
            "license": check_line(license, "licence of the table"),
            "source": check_line(source, "source of the table"),
        }
        self._created_by = check_line(created_by, "command") or "fmri_models.data.TrialTableWriter"
        self._stack = ExitStack()
        self._contents: dict[str, str | None] = {}
        self._checks = TrainingChecks()
        self._channels = 1
        self._pending_stimuli: list[dict] = []
        self._pending_bytes = 0
        self._stimulus_files = 0
        self._subjects: dict[str, _Subject] = {}
        self._splits: dict[str, tuple[pa.Table, str]] = {}
        self._files: dict[str, dict] = {}
        check_output_folder(self.path, overwrite, TRIAL_TABLE, self.inputs)

    def __enter__(self) -> "TrialTableWriter":
        self._folder = self._stack.enter_context(atomic_folder(self.path, self.overwrite, TRIAL_TABLE, self.inputs))
        (self._folder / _BUFFER_FOLDER).mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
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
                or None), `captions` (list of str), `category` (str), `factors` (dict that JSON takes).

        Raises:
            FmriModelsError: An id is used twice or can't be a file name, or a picture can't be decoded.
        """
        for record in records:
            row = self._stimulus_row(record)
            self._pending_stimuli.append(row)
            self._pending_bytes += len(row["image"]["bytes"]) if row["image"] else 0
            if len(self._pending_stimuli) == _PICTURES_PER_FILE or self._pending_bytes > _BYTES_PER_FILE:
                self._write_stimuli()

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
            num_voxels: How many voxels the subject has.
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
        self._subject(subject, num_voxels)
        if source is not None and source not in schema.NOISE_CEILING_SOURCES:
            known = ", ".join(schema.NOISE_CEILING_SOURCES)
            raise FmriModelsError(f"The noise ceiling's source is {source!r}; expected one of: {known}.")
        ratios = _column(ncsnr, (num_voxels,), f"ncsnr of {subject}", 0)
        if noise_ceiling is None and ratios is not None:
            noise_ceiling = noise_ceiling_from_ncsnr(ratios, repetitions)
        if noise_ceiling is not None and source is None:
            known = ", ".join(schema.NOISE_CEILING_SOURCES)
            raise FmriModelsError(f"{subject} has noise ceilings without a source; pass one of: {known}.")
        xyz = _column(coordinates, (num_voxels, 3), f"coordinates of {subject}")
        ceiling = _column(noise_ceiling, (num_voxels,), f"noise ceilings of {subject}", 0, 1)
        labels = [""] * num_voxels if roi is None else [_label(label) for label in roi]
        for label in set(labels):
            check_line(label, f"ROI label of {subject}")
        check_line(space, f"space of the voxels of {subject}")
        if len(labels) != num_voxels:
            raise FmriModelsError(f"{subject} has {len(labels)} ROI labels; expected {num_voxels}, one a voxel.")
        known_ceiling = None if ceiling is None else source
        columns = {
            "index": np.arange(num_voxels, dtype=np.int32),
            "roi": labels,
            "x": _nullable(None if xyz is None else xyz[:, 0], num_voxels),
            "y": _nullable(None if xyz is None else xyz[:, 1], num_voxels),
            "z": _nullable(None if xyz is None else xyz[:, 2], num_voxels),
            "space": [space] * num_voxels,
            "ncsnr": _nullable(ratios, num_voxels),
            "noise_ceiling": _nullable(ceiling, num_voxels),
            "noise_ceiling_source": [known_ceiling] * num_voxels,
            "noise_ceiling_repetitions": pa.array(
                [repetitions if known_ceiling else None] * num_voxels, type=pa.int32()
            ),
        }
        if source_columns is not None:
            columns |= {"source_index": source_columns, "source_width": [source_width] * num_voxels}
        dropped = source_columns is not None
        self._subjects[subject].voxels = pa.table(columns, schema=schema.voxels_schema(dropped))

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
    ) -> None:
        """Adds trials of one subject to one part of the default split.

        Args:
            subject: The subject's id.
            split: "train", "validation" or "test".
            stimulus_ids: (n,) ids of what was shown; `add_stimuli` has to name them, before or after.
            fmri: (n, voxels) betas, or an iterator of row blocks of them, which then needn't fit into memory.
            sessions: (n,) whole numbers; 1 where they are not given.
            runs: (n,) whole numbers; 1 where they are not given.
            trials: (n,) whole numbers, unique within the subject; counted on where they are not given.
            repetitions: (n,) whole numbers from 0; counted per subject and stimulus where they are not given.

        Raises:
            FmriModelsError: Lengths or widths differ, a value is NaN or infinite, or the split is an unknown one.
        """
        check_name(subject, "subject")
        if subject == schema.STIMULI_FOLDER:
            raise FmriModelsError("A subject can't be called 'stimuli': the data set card uses that name; rename it.")
        if split not in schema.SPLITS:
            raise FmriModelsError(f"The split is {split!r}; expected one of {', '.join(schema.SPLITS)}.")
        ids = [check_name(str(stimulus), "stimulus id") for stimulus in stimulus_ids]
        blocks = _blocks(fmri)
        first = next(blocks, None)
        if first is None:
            if ids:
                raise FmriModelsError(f"{subject}, {split}: no betas for {len(ids)} trials.")
            return
        part = self._subject(subject, first.shape[1])
        rows = part.rows[split]
        blocks = self._checks.passing(subject, split, _chain(first, blocks))
        written = part.append(split, blocks, self._folder / _BUFFER_FOLDER)
        if written != len(ids):
            raise FmriModelsError(f"{subject}, {split}: {written} rows of betas for {len(ids)} stimulus ids.")
        counted = range(part.next_trial, part.next_trial + len(ids))
        rows["stimulus_id"].extend(ids)
        rows["session"].extend(_integers(sessions, len(ids), 1, f"sessions of {subject}"))
        rows["run"].extend(_integers(runs, len(ids), 1, f"runs of {subject}"))
        numbers = list(counted) if trials is None else _integers(trials, len(ids), 0, f"trial numbers of {subject}")
        part.claim_trials(numbers)
        rows["trial"].extend(numbers)
        if repetitions is None:
            rows["repetition"].extend(part.count_repetitions(ids))
        else:
            rows["repetition"].extend(_integers(repetitions, len(ids), 0, f"repetitions of {subject}"))

    def add_noise_free(self, subject: str, stimulus_ids: Sequence[str], fmri: np.ndarray) -> None:
        """Adds a simulated subject's responses without noise, (stimuli, voxels)."""
        check_name(subject, "subject")
        values = _checked_block(as_numbers(fmri, "Noise-free responses"), f"noise-free responses of {subject}")
        self._subject(subject, values.shape[1])
        if len(values) != len(stimulus_ids):
            raise FmriModelsError(
                f"{subject} has {len(values)} noise-free responses for {len(stimulus_ids)} stimulus ids."
            )
        ids = [check_name(str(stimulus), "stimulus id") for stimulus in stimulus_ids]
        columns = {"stimulus_id": ids, schema.FMRI: schema.fmri_array(values)}
        self._subjects[subject].noise_free = ids
        table = pa.table(columns, schema=schema.noise_free_schema(values.shape[1]))
        self._write(table, f"{schema.NOISE_FREE_FOLDER}/{subject}.parquet")

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

    def _subject(self, subject: str, num_voxels: int) -> "_Subject":
        if not 1 <= num_voxels <= schema.MAX_VOXELS:
            raise FmriModelsError(f"{subject} has {num_voxels} voxels; expected 1 to {schema.MAX_VOXELS}.")
        known = self._subjects.get(subject) or self._subjects.setdefault(subject, _Subject(subject, num_voxels))
        if known.num_voxels != num_voxels:
            raise FmriModelsError(
                f"{subject} has {num_voxels} voxels here and {known.num_voxels} before; expected one width a subject."
            )
        return known

    def _stimulus_row(self, record: Mapping) -> dict:
        stimulus_id = check_name(record["stimulus_id"], "stimulus id")
        if stimulus_id in self._contents:
            raise FmriModelsError(f"The stimulus id {stimulus_id!r} is there twice; each picture is given once.")
        image, digest = None, None
        if record.get("image") is not None:
            data = encode_picture(record["image"], f"stimulus {stimulus_id}")
            pixels = read_picture(data, f"stimulus {stimulus_id}")
            digest = content_sha256(pixels)
            self._checks.add_picture(stimulus_id, pixels)
            self._channels = max(self._channels, pixels.shape[2])
            ending = picture_format(data, f"stimulus {stimulus_id}")
            image = {"bytes": data, "path": f"{stimulus_id}.{ending}"}
        self._contents[stimulus_id] = digest
        factors, category = record.get("factors"), record.get("category")
        if factors is not None:
            _json(factors, f"factors of {stimulus_id}")
        return {
            "stimulus_id": stimulus_id,
            "image": image,
            "captions": [_text(str(caption), f"caption of {stimulus_id}") for caption in record.get("captions") or []],
            "category": None if category is None else check_line(category, f"category of {stimulus_id}"),
            "factors": None if factors is None else json.dumps(factors, sort_keys=True),
            "content_sha256": digest,
        }

    def _write_stimuli(self) -> None:
        table = pa.Table.from_pylist(self._pending_stimuli, schema=schema.stimuli_schema())
        largest = max((len(row["image"]["bytes"]) for row in self._pending_stimuli if row["image"]), default=1)
        rows = max(1, min(_PICTURES_PER_ROW_GROUP, _BYTES_PER_ROW_GROUP // max(largest, 1)))
        # Renamed at the end, when the number of files is known.
        self._write_parquet(table, self._folder / _BUFFER_FOLDER / f"stimuli-{self._stimulus_files:05d}", rows)
        self._stimulus_files += 1
        self._pending_stimuli = []
        self._pending_bytes = 0

    def _finish(self) -> None:
        self._check_content()
        shown = {
            name: {split: Shown(rows["trial"], rows["stimulus_id"]) for split, rows in part.rows.items()}
            for name, part in self._subjects.items()
        }
        self.findings, self.notes = self._checks.findings(shown), self._checks.notes()
        if self._pending_stimuli:
            self._write_stimuli()
        self._name_stimulus_files()
        for subject, part in sorted(self._subjects.items()):
            self._write_trials(subject, part)
            if part.voxels is None:
                self.add_voxels(subject, part.num_voxels)
            self._write(part.voxels, f"{schema.VOXELS_FOLDER}/{subject}.parquet")
        shutil.rmtree(self._folder / _BUFFER_FOLDER)
        for name, (table, _) in sorted({**self._splits, schema.DEFAULT_SPLIT: self._default_split()}.items()):
            self._write(table, f"{schema.SPLITS_FOLDER}/{name}.parquet")
        metadata = self._metadata()
        (self._folder / "README.md").write_text(data_card(metadata), encoding="utf-8")
        check_metadata(metadata, "The trial table")
        text = _json(metadata, "table's own values", indent=2)
        (self._folder / schema.TABLE_FILE).write_text(text + "\n", encoding="utf-8")

    def _check_content(self) -> None:
        if not self._subjects:
            raise FmriModelsError(f"The trial table {self._about['name']!r} has no trials; add some.")
        for subject, part in self._subjects.items():
            if not any(part.rows[split]["trial"] for split in schema.SPLITS):
                raise FmriModelsError(f"{subject} has no trials; add some, or leave the subject out.")
        if clash := _RESERVED & self.extra.keys():
            raise FmriModelsError(f"The extra keys {sorted(clash)} belong to the table itself; rename them.")
        for subject, part in self._subjects.items():
            used = [*part.noise_free, *(i for split in schema.SPLITS for i in part.rows[split]["stimulus_id"])]
            if missing := sorted(set(used) - self._contents.keys()):
                raise FmriModelsError(
                    f"{subject} has trials of {len(missing)} stimuli that the table doesn't have "
                    f"({listed(missing)}); add them, with image=None where the picture can't be given."
                )
        default, repeats = self._default_split()
        if not repeats:
            check_disjoint(default, self._contents, schema.DEFAULT_SPLIT)
        for name, (table, repeats) in self._splits.items():
            self._check_split_rows(name, table)
            if not repeats:
                check_disjoint(table, self._contents, name)

    def _check_split_rows(self, name: str, table: pa.Table) -> None:
        shown = {
            (subject, trial): stimulus
            for subject, part in self._subjects.items()
            for split in schema.SPLITS
            for trial, stimulus in zip(part.rows[split]["trial"], part.rows[split]["stimulus_id"], strict=True)
        }
        check_split_rows(name, table, shown)

    def _default_split(self) -> tuple[pa.Table, str]:
        columns: dict[str, list] = {"subject": [], "trial": [], "stimulus_id": [], "split": []}
        for subject, part in sorted(self._subjects.items()):
            for split in schema.SPLITS:
                rows = part.rows[split]
                columns["subject"] += [subject] * len(rows["trial"])
                columns["trial"] += rows["trial"]
                columns["stimulus_id"] += rows["stimulus_id"]
                columns["split"] += [split] * len(rows["trial"])
        fold = np.zeros(len(columns["trial"]), dtype=np.int32)
        by = "the table's own files"
        return split_table({"fold": fold, **columns}, by, None, self.repeats_stimuli), self.repeats_stimuli

    def _name_stimulus_files(self) -> None:
        (self._folder / schema.STIMULI_FOLDER).mkdir()
        for index in range(self._stimulus_files):
            name = f"{schema.STIMULI_FOLDER}/stimuli-{index:05d}-of-{self._stimulus_files:05d}.parquet"
            (self._folder / _BUFFER_FOLDER / f"stimuli-{index:05d}").rename(self._folder / name)
            self._record(name)

    def _write_trials(self, subject: str, part: "_Subject") -> None:
        dtype = np.float16 if part.fits_float16 else np.float32
        for split in schema.SPLITS:
            rows = part.rows[split]
            count = len(rows["trial"])
            num_files = -(-count // ROWS_PER_FILE)
            for index in range(num_files):
                name = f"{schema.TRIALS_FOLDER}/{subject}/{split}-{index:05d}-of-{num_files:05d}.parquet"
                span = range(index * ROWS_PER_FILE, min((index + 1) * ROWS_PER_FILE, count))
                self._write_trial_file(name, subject, part, split, span, dtype)
            part.discard(split)

    def _write_trial_file(
        self, name: str, subject: str, part: "_Subject", split: str, span: range, dtype: type
    ) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table_schema = self._with_metadata(schema.trials_schema(part.num_voxels, dtype))
        rows = part.rows[split]
        with pq.ParquetWriter(path, table_schema, **_parquet_options(table_schema)) as out:
            for start in range(span.start, span.stop, ROW_GROUP):
                stop = min(start + ROW_GROUP, span.stop)
                columns = {key: rows[key][start:stop] for key in schema.TRIAL_COLUMNS if key != "subject"}
                fmri = schema.fmri_array(part.read(split, start, stop).astype(dtype, copy=False))
                columns = {"subject": [subject] * (stop - start), **columns, schema.FMRI: fmri}
                out.write_table(pa.table(columns, schema=table_schema), row_group_size=ROW_GROUP)
        self._record(name)

    def _write(self, table: pa.Table, name: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write_parquet(table, path, ROW_GROUP if schema.FMRI in table.column_names else 2**17)
        self._record(name)

    def _write_parquet(self, table: pa.Table, path: Path, row_group: int) -> None:
        table = table.cast(self._with_metadata(table.schema))
        pq.write_table(table, path, row_group_size=row_group, **_parquet_options(table.schema))

    def _with_metadata(self, table_schema: pa.Schema) -> pa.Schema:
        # What changes from one writing to the next stays out: equal tables have equal files.
        about = {"schema": schema.SCHEMA_VERSION, **self._about}
        own = json.loads((table_schema.metadata or {}).get(b"fmri_models", b"{}"))
        own_metadata = {"fmri_models": json.dumps({**about, **own})}
        return table_schema.with_metadata({**(table_schema.metadata or {}), **own_metadata})

    def _record(self, name: str) -> None:
        path = self._folder / name
        self._files[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}

    def _metadata(self) -> dict:
        trials = {
            subject: {split: len(part.rows[split]["trial"]) for split in schema.SPLITS}
            for subject, part in sorted(self._subjects.items())
        }
        return {
            "schema": schema.SCHEMA_VERSION,
            **self._about,
            "package_version": __version__,
            "created_by": self._created_by,
            "default_split": schema.DEFAULT_SPLIT,
            "subjects": sorted(self._subjects),
            "num_voxels": {subject: part.num_voxels for subject, part in sorted(self._subjects.items())},
            "trials": trials,
            "image_channels": self._channels,
            **({schema.FINDINGS: self.findings} if self.findings else {}),
            **self.extra,
            "files": dict(sorted(self._files.items())),
        }


class _Subject:
    """What the writer knows of one subject; betas wait in files until all of them have been seen."""

    def __init__(self, name: str, num_voxels: int) -> None:
        self.name = name
        self.num_voxels = num_voxels
        # Nothing is rounded: float32 for the sake of trials that a split holds out changes no other trial.
        self.fits_float16 = True
        columns = [key for key in schema.TRIAL_COLUMNS if key != "subject"]
        self.rows: dict[str, dict[str, list]] = {split: {key: [] for key in columns} for split in schema.SPLITS}
        self.voxels: pa.Table | None = None
        self.noise_free: list[str] = []
        self.next_trial = 0
        self._buffers: dict[str, Path] = {}
        self._seen_trials: set[int] = set()
        self._shown: dict[str, int] = defaultdict(int)

    def append(self, split: str, blocks: Iterator[np.ndarray], folder: Path) -> int:
        """Writes blocks behind those that the split has already; returns the number of rows."""
        written = 0
        path = self._buffers.setdefault(split, folder / f"{self.name}-{split}")
        # Written, not memory-mapped: a full disk is an error then, and not a killed process.
        with path.open("ab") as out:
            for block in blocks:
                if block.shape[1] != self.num_voxels:
                    raise FmriModelsError(
                        f"A block of betas of {self.name} has {block.shape[1]} voxels; expected {self.num_voxels}."
                    )
                for start in range(0, len(block), ROW_GROUP):
                    what = f"the betas of {self.name} ({split}, from row {written + start} on)"
                    rows = _checked_block(block[start : start + ROW_GROUP], what)
                    self.fits_float16 = self.fits_float16 and _fits_float16(rows)
                    out.write(rows.tobytes())
                written += len(block)
        return written

    def read(self, split: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a split, (n, voxels) float32."""
        with self._buffers[split].open("rb") as file:
            file.seek(start * self.num_voxels * 4)
            values = np.fromfile(file, dtype=np.float32, count=(stop - start) * self.num_voxels)
        return values.reshape(stop - start, self.num_voxels)

    def discard(self, split: str) -> None:
        if split in self._buffers:
            self._buffers[split].unlink()

    def claim_trials(self, numbers: list[int]) -> None:
        again = [n for n in numbers if n in self._seen_trials]
        self._seen_trials.update(numbers)
        if again or len(set(numbers)) != len(numbers):
            twice = again or [n for n in numbers if numbers.count(n) > 1]
            raise FmriModelsError(f"{self.name} has the trial number {twice[0]} twice; expected each once.")
        self.next_trial = max([self.next_trial, *(n + 1 for n in numbers)])

    def count_repetitions(self, stimulus_ids: list[str]) -> list[int]:
        counted = []
        for stimulus in stimulus_ids:
            counted.append(self._shown[stimulus])
            self._shown[stimulus] += 1
        return counted


def _parquet_options(table_schema: pa.Schema) -> dict:
    """Dictionary encoding for text only: on the betas it costs five times the reading time."""
    text = [field.name for field in table_schema if pa.types.is_string(field.type)]
    if schema.FMRI in table_schema.names:
        return {"compression": "zstd", "use_dictionary": text, "use_byte_stream_split": [schema.FMRI_ELEMENT]}
    return {"compression": "zstd", "use_dictionary": text}


def _blocks(fmri: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in [fmri] if hasattr(fmri, "shape") else fmri:
        block = as_numbers(block, "Betas")
        if block.ndim != 2:
            raise FmriModelsError(f"Betas have the shape {block.shape}; expected (trials, voxels).")
        yield block


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _checked_block(block: np.ndarray, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(block, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        row, voxel = np.argwhere(~finite)[0]
        raise FmriModelsError(
            f"{values.size - finite.sum()} values are NaN or infinite in {what} (first: row {row}, voxel {voxel}); "
            "expected finite float32 numbers. Drop such voxels or trials first."
        )
    return values


def _fits_float16(values: np.ndarray) -> bool:
    """Whether float32 numbers stay what they are in float16."""
    with np.errstate(over="ignore", under="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _integers(values: Sequence[int] | None, count: int, missing: int, what: str) -> list[int]:
    if values is None:
        return [missing] * count
    array = np.asarray(unmasked(values, f"The {what}"))
    if array.shape != (count,):
        raise FmriModelsError(f"There are {array.size} {what} for {count} trials.")
    if array.dtype.kind not in "iu" and count:
        raise FmriModelsError(f"The {what} have the type {array.dtype}; expected whole numbers.")
    if count and (array.min() < 0 or array.max() > schema.MAX_INT32):
        raise FmriModelsError(f"The {what} go from {array.min()} to {array.max()}; expected 0 to {schema.MAX_INT32}.")
    return array.tolist()


def _column(
    values: np.ndarray | None, shape: tuple[int, ...], what: str, least: float | None = None, most: float | None = None
) -> np.ndarray | None:
    """Finite numbers between two bounds, or NaN where one is unknown."""
    if values is None:
        return None
    with np.errstate(over="ignore"):
        array = np.asarray(unmasked(values, f"The {what}"), dtype=np.float32)
    if array.shape != shape:
        raise FmriModelsError(f"The {what} have the shape {array.shape}; expected {shape}.")
    known = array[~np.isnan(array)]
    outside = np.isinf(known)
    outside |= False if least is None else known < least
    outside |= False if most is None else known > most
    if outside.any():
        bounds = (
            "finite numbers" if least is None else f"{least:g} or more" if most is None else f"{least:g} to {most:g}"
        )
        raise FmriModelsError(f"The {what} have the value {known[outside][0]:g}; expected {bounds}, NaN where unknown.")
    return array


def _label(label: object) -> str:
    """An ROI's label; empty for the values by which NumPy and pandas say that there is none."""
    text = "" if label is None else str(label)
    return "" if not isinstance(label, str) and text in ("nan", "<NA>", "NaT", "--") else text


def _text(value: object, what: str) -> str:
    """Text of any number of lines that can be written as UTF-8.

    Raises:
        FmriModelsError: It is no text, is too long, or has broken characters.
    """
    if not isinstance(value, str):
        raise FmriModelsError(f"The {what} is {one_line(repr(value))}; expected a text.")
    if len(value) > _MOST_TEXT:
        raise FmriModelsError(f"The {what} has {len(value)} characters; expected {_MOST_TEXT} at most.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FmriModelsError(f"The {what} {one_line(repr(value))} has broken characters; remove them.") from error
    return value


def _json(values: object, what: str, indent: int | None = None, sort_keys: bool = False) -> str:
    """Values as JSON that the readers of tables take.

    Raises:
        FmriModelsError: They hold something else than JSON does, NaN, or broken characters.
    """
    try:
        text = json.dumps(values, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FmriModelsError(f"The {what} can't be written as JSON ({one_line(error, 120)}); change them.") from error
    parse_json(text, f"The {what}", "change them")
    return text


def _nullable(values: np.ndarray | None, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, pa.float32())
    return pa.array(values, mask=np.isnan(values))
