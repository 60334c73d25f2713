"""From a saved pipeline and a trial table to a report: every row on the same test stimuli."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers.utils import logging

from .. import progress
from ..data.generator_pictures import pictures_to_embed, prepare_pictures
from ..data.processed import BetasOfTrials, ProcessedTrials
from ..data.schema import TEST, TRAIN, VALIDATION
from ..data.split_files import part_fingerprints
from ..data.splits import named_folds, untested_sentences
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..data.targets import Target, cached_targets
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..modeling_outputs import FmriDecoding
from ..names import listed, one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..pipeline_folder import INDEX_FILE
from ..processing.options import UnseenSession
from ..scenes import SceneFactors, background, factor_combinations_seen
from ..swapping import recover
from ..training_record import TrainingRecord, differing
from .controls import LinearReferences, exchange_stimuli, nearest_training_rows
from .held_out import HeldOut, check_trained_split, held_out_notes, held_out_trials, learned_stimuli
from .looks import check_log, looks_at_folds, looks_sentence, name_of_look, record_look
from .near_copies import near_copies_content, near_copies_notes, near_copies_of_folds
from .processor_notes import processor_notes
from .protocols import Protocol, get_protocol
from .report import Report
from .report_folder import check_report_folder, write_report
from .rows import RowData, get_row
from .scored_items import picture_ids
from .scoring import score_rows
from .seeded_drawing import Precision, SeededDrawing

logger = logging.get_logger(__name__)

GRID_ROWS = (
    "brain",
    "brain_low_level",
    "ridge",
    "ceiling",
    "noise_free",
    "nearest_train",
    "shuffled_brain",
    "mean_image",
    "floor",
)


# In reports.
ROW_ORDER = (
    "brain",
    "brain_low_level",
    "brain_embeds_only",
    "shuffled_brain",
    "permuted_training",
    "permuted_training_own",
    "mean_image",
    "nearest_train",
    "floor",
    "ceiling",
    "ceiling_embeds_only",
    "ridge",
    "noise_free",
    "reference",
    "background",
)


@dataclass
class Evaluated:
    """Rows of one subject on one fold.

    Args:
        subject: Name.
        fold: Fold of the split.
        stimulus_ids: (N,) stimulus of each item.
        truth: (N, C, H, W) what was shown, in [0, 1].
        rows: Name ▶ pictures and embeddings.
        gallery_embeds: (N, …) embeddings of what was shown; None without retrieval.
        held_out: The trials behind the items, and what is known of whether they were learned from.
        notes: What the report says of the processor.
    """

    subject: str
    fold: int
    stimulus_ids: list[str]
    truth: torch.Tensor
    rows: dict[str, RowData]
    gallery_embeds: torch.Tensor | None
    held_out: HeldOut
    notes: list[str] = field(default_factory=list)


# Pipeline, table, training record and seed of the exchange ▶ the pipeline's brain model, trained on exchanged pairs.
Refit = Callable[[FmriToImagePipeline, TrialTable, TrainingRecord, int], FmriPreTrainedModel]


@dataclass
class Evaluation:
    """Evaluates a pipeline, or the pipelines of all folds, on the test trials of a table.

    Args:
        model: A pipeline's folder or its name on the Hub, or a folder of `fold00` … with one each.
        data: Folder of the trial table.
        protocol: Which metrics.
        repetitions: `"average"` a stimulus' test repetitions after standardisation, or score `"single"` trials.
        settings: What is drawn with in the place of the pipeline's own settings; a mapping replaces single ones.
        reference: Another pipeline, or the folder of its `fold00` …, trained on the same split: the row `reference`,
            which is drawn with the same settings.
        seed: Of everything that is drawn at random; item i is drawn from `seed + i`.
        precision: What pictures are computed in.
        unseen_session: What the processor does with sessions of which it has no statistics; None leaves it as it is.
        refit: Trains the evaluated method anew on exchanged pairs, for the row `permuted_training_own`; None leaves
            that row out.
    """

    model: str | os.PathLike
    data: Path
    protocol: Protocol
    repetitions: Literal["average", "single"] = "average"
    settings: DrawingSettings | Mapping[str, Any] | None = None
    reference: str | os.PathLike | None = None
    seed: int = 0
    precision: Precision = "float32"
    unseen_session: UnseenSession | None = None
    refit: Refit | None = None

    def run(self, out: str | os.PathLike) -> Report:
        """Draws all rows, scores them, and writes the report."""
        started = time.perf_counter()
        # Refuses what can't be drawn with before anything is read.
        SeededDrawing(DrawingSettings().changed(self.settings), self.seed, self.precision)
        table = TrialTable.open(self.data)
        check_log(table.path)
        saved = saved_pipelines(self.model, self.unseen_session)
        records = [each.record(table) for each in saved]
        check_folds(saved, records)
        if self.refit is not None and any(record.method == "unknown" for record in records):
            raise FmriModelsError(
                f"{one_line(self.model)} has no training record, so that nobody knows how to train it on exchanged "
                "pairs; evaluate without --refit-permuted."
            )
        beside = None if self.reference is None else references_of(self.reference, table, records, self.unseen_session)
        parts = []
        untested: dict[str, list[int]] = {}
        drawing = None
        for number, (each, record) in enumerate(zip(saved, records, strict=True)):
            folds = f" (fold {number + 1} of {len(saved)})" if len(saved) > 1 else ""
            with progress.phase(f"Loading the pipeline{folds}"):
                pipeline = each.load()
            drawing = self._drawing(pipeline, drawing)
            reference = None if beside is None else beside[number].load()
            # Fitted for all subjects at once, when the first of them asks.
            with progress.phase("Reading the training trials for ridge"):
                references = LinearReferences(pipeline, table, record, self.seed)
            refitted = None
            if self.refit is not None:
                with progress.phase("Training the method itself on exchanged pairs"):
                    refitted = self.refit(pipeline, table, record, self.seed)
            for subject in pipeline.processor.subject_names:
                if not _tested(table, subject, record):
                    untested.setdefault(subject, []).append(record.fold)
                    continue
                parts.append(
                    self.evaluate_subject(pipeline, drawing, record, table, subject, references, reference, refitted)
                )
        if not parts:
            folds = named_folds([record.fold for record in records])
            raise FmriModelsError(
                f"{one_line(table.path)} has no test trials of {listed(untested)} in {folds} of the split "
                f"{records[0].split!r}; evaluate other folds, or train on a split that has some."
            )
        assert drawing is not None
        notes = untested_sentences(untested, records[0].split)
        if self._is_of_folds(saved):
            notes = [*missing_folds_notes(table, records), *notes]
        return self._report(table, pipeline, drawing, records[0], parts, Path(out), started, notes)

    def _is_of_folds(self, saved: Sequence["SavedPipeline"]) -> bool:
        """Whether what is evaluated is a folder of folds, and not a single pipeline."""
        return os.fspath(saved[0].source) != os.fspath(Path(self.model)) and Path(self.model).is_dir()

    def _drawing(self, pipeline: FmriToImagePipeline, earlier: SeededDrawing | None) -> SeededDrawing:
        """How a pipeline draws; those of all folds draw alike, since one report speaks of them all."""
        if earlier is None and isinstance(self.settings, Mapping):
            pipeline.warn_of_unused(self.settings)
        drawing = SeededDrawing(pipeline.drawing_settings.changed(self.settings), self.seed, self.precision)
        if earlier is None and self.precision == "bfloat16":
            logger.info(
                "Pictures are drawn in bfloat16 here; those of a call of the pipeline, in float32, differ a little."
            )
        if earlier is not None and drawing != earlier:
            raise FmriModelsError(
                f"The folds of {one_line(self.model)} draw with other settings than each other ({earlier.call()} and "
                f"{drawing.call()}); give the settings that all are measured with."
            )
        return drawing

    def evaluate_subject(
        self,
        pipeline: FmriToImagePipeline,
        drawn_by: SeededDrawing,
        record: TrainingRecord,
        table: TrialTable,
        subject: str,
        references: LinearReferences,
        reference: FmriToImagePipeline | None = None,
        refitted: FmriPreTrainedModel | None = None,
    ) -> Evaluated:
        """All rows of one subject; `reference` is another pipeline, `refitted` the model trained on exchanged pairs."""
        held_out = held_out_trials(pipeline, table, subject)
        test = held_out.trials
        processed = ProcessedTrials(test, pipeline.processor, self.repetitions)
        ids = processed.stimulus_ids.tolist()
        generator = pipeline.image_generator
        truth = prepare_pictures(table.stimuli.images(ids), generator.image_size)
        drawing = _Drawing(pipeline, drawn_by, len(ids), subject)
        features = torch.from_numpy(processed[np.arange(len(processed))])
        with progress.phase(f"Decoding {subject}"):
            decoding = drawing.decode(pipeline.brain_model, features)
        of_references = references.features(test, self.repetitions)
        ways: dict[str, Callable[[], RowData]] = {"brain": lambda: drawing.row(decoding)}
        ways |= self._parts(drawing, decoding)
        pictures = picture_ids(ids, truth).tolist()
        if len(set(pictures)) > 1:
            exchanged = features[torch.from_numpy(exchange_stimuli(pictures, self.seed))]
            ways["shuffled_brain"] = lambda: drawing.row(drawing.decode(pipeline.brain_model, exchanged))
        ways["permuted_training"] = lambda: drawing.row(drawing.decode(references.permuted, of_references))
        if refitted is not None:
            ways["permuted_training_own"] = lambda: drawing.row(drawing.decode(refitted, features))
        ways["floor"] = lambda: RowData(images=drawing.unconditional())
        ways |= drawing.ceilings(truth)
        if references.ridge is not pipeline.brain_model:
            ways["ridge"] = lambda: drawing.row(drawing.decode(references.ridge, of_references))
        noise_free = _noise_free_trials(table, test)
        if noise_free is not None:
            expected = ProcessedTrials(noise_free, pipeline.processor, self.repetitions)
            noise_free_features = torch.from_numpy(expected[np.arange(len(expected))])
            ways["noise_free"] = lambda: drawing.row(drawing.decode(pipeline.brain_model, noise_free_features))
        if reference is not None:
            ways["reference"] = lambda: self._reference_row(reference, drawn_by, subject, test)
        of_subject = subject if len(pipeline.processor.subject_names) > 1 else ""
        drawn = _drawn_rows(ways, pipeline, reference, of_subject, len(ids))
        if "ridge" not in drawn:
            drawn["ridge"] = drawn["brain"]
        with progress.phase("Looking for the nearest training pictures"):
            drawn |= self._training_pictures(pipeline, record, table, subject, decoding)
        scene_factors = _scene_factors(table, ids)
        if scene_factors is not None:
            without_object = np.stack([background(scene) for scene in scene_factors])
            drawn["background"] = RowData(images=prepare_pictures(without_object, generator.image_size))
        rows = {name: drawn[name] for name in ROW_ORDER if name in drawn}
        gallery = None
        if decoding.retrieval_embeds is not None:
            # Prepared as training targets are.
            gallery = generator.embed_images(pictures_to_embed(table.stimuli.images(ids), generator))
        notes = processor_notes(pipeline.processor, table, test)
        return Evaluated(subject, record.fold, ids, truth, rows, gallery, held_out, notes)

    def _parts(self, drawing: "_Drawing", decoding: FmriDecoding) -> dict[str, Callable[[], RowData]]:
        """What the decoded latent and the decoded embeddings give alone, where the generator uses both."""
        if not drawing.pipeline.image_generator.generates_from_embeddings:
            return {}
        if decoding.image_embeds is None or decoding.latents is None:
            return {}
        low_level = FmriDecoding(latents=decoding.latents)
        embeds_only = FmriDecoding(
            image_embeds=decoding.image_embeds,
            text_embeds=decoding.text_embeds,
            retrieval_embeds=decoding.retrieval_embeds,
        )
        return {
            "brain_low_level": lambda: RowData(images=drawing.draw(low_level, strength=0.0, num_candidates=1)),
            "brain_embeds_only": lambda: RowData(images=drawing.draw(embeds_only)),
        }

    def _training_pictures(
        self,
        pipeline: FmriToImagePipeline,
        record: TrainingRecord,
        table: TrialTable,
        subject: str,
        decoding: FmriDecoding,
    ) -> dict[str, RowData]:
        """The mean training picture, and the one nearest to what was decoded."""
        trials = table.trials(subject, record.train_parts, record.split, record.fold)
        ids = list(dict.fromkeys(trials.stimulus_ids.tolist()))
        generator = pipeline.image_generator
        total = torch.zeros(generator.image_size, dtype=torch.float64)
        for start in range(0, len(ids), 512):
            pictures = prepare_pictures(table.stimuli.images(ids[start : start + 512]), generator.image_size)
            total += pictures.double().sum(dim=0)
        kind, decoded = _compared_with_training(decoding)
        mean = (total / len(ids)).float().expand(len(decoded), -1, -1, -1)
        targets = cached_targets(table, generator, kind)
        nearest = [ids[row] for row in nearest_training_rows(decoded, targets, table.stimuli.rows(ids))]
        pictures = prepare_pictures(table.stimuli.images(nearest), generator.image_size)
        return {"mean_image": RowData(images=mean), "nearest_train": RowData(images=pictures)}

    def _reference_row(
        self, pipeline: FmriToImagePipeline, drawn_by: SeededDrawing, subject: str, test: Trials
    ) -> RowData:
        processed = ProcessedTrials(test, pipeline.processor, self.repetitions)
        drawing = _Drawing(pipeline, drawn_by, len(processed), subject)
        features = torch.from_numpy(processed[np.arange(len(processed))])
        return RowData(images=drawing.draw(drawing.decode(pipeline.brain_model, features)))

    def _report(
        self,
        table: TrialTable,
        pipeline: FmriToImagePipeline,
        drawing: SeededDrawing,
        record: TrainingRecord,
        parts: Sequence[Evaluated],
        out: Path,
        started: float,
        first_notes: Sequence[str],
    ) -> Report:
        ids = [stimulus for part in parts for stimulus in part.stimulus_ids]
        truth = torch.cat([part.truth for part in parts])
        rows = _joined_rows([part.rows for part in parts])
        factors = table.stimuli.factors(ids)
        known_factors = [scene or {} for scene in factors] if all(factors) else None
        galleries = [part.gallery_embeds for part in parts]
        drawn = time.perf_counter() - started
        protocol = self.protocol.with_trial_average(self.repetitions == "average")
        folds = [part.fold for part in parts for _ in part.stimulus_ids]
        columns: dict[str, Any] = {
            "subjects": [part.subject for part in parts for _ in part.stimulus_ids],
            "gallery_embeds": None
            if any(g is None for g in galleries)
            else torch.cat([g for g in galleries if g is not None]),
            "backgrounds": None if known_factors is None else _backgrounds(known_factors),
            "factors": known_factors,
        }
        scores = score_rows(rows, truth, ids, protocol, folds=folds, **columns, seed=self.seed)
        copies = near_copies_of_folds(table, record.split, pipeline.processor.subject_names, folds)
        near_copies = near_copies_content(copies, rows["brain"], truth, ids, folds, protocol, columns, self.seed)
        name = Path(self.model).name if Path(self.model).is_dir() else os.fspath(self.model)
        num_folds = table.num_folds(record.split)
        rows_of_split = table.split_rows(record.split)
        tested = {fold: part_fingerprints(rows_of_split, fold)[TEST] for fold in sorted(set(folds))}
        looks = looks_at_folds(table.path, table.fingerprint, record.split, tested)
        progress.say("Summing up: intervals and the permutation test")
        report = Report.from_scores(
            scores,
            self.protocol,
            data=_describe_data(table, record, parts, known_factors),
            model={
                "path": name,
                "method": record.method,
                "subjects": pipeline.processor.subject_names,
                "image_generator": type(pipeline.image_generator).__name__,
                "repetitions_trained_on": record.repetitions,
                "training_seconds": record.seconds,
                "settings": {
                    **pipeline.settings_used(drawing.settings),
                    "seed": drawing.seed,
                    "precision": drawing.precision,
                },
                "transductive": pipeline.processor.is_transductive,
            },
            timing={"rows_s": drawn, "total_s": time.perf_counter() - started},
            seed=self.seed,
            looks=[look for look, _ in looks],
            notes=[
                *held_out_notes([part.held_out for part in parts]),
                *dict.fromkeys(note for part in parts for note in part.notes),
                *_notes(table, record, pipeline, rows),
                looks_sentence(looks, tested, num_folds),
                *_not_learned_from(table, record, parts),
            ],
        )
        report.near_copies = near_copies
        of_copies = near_copies_notes(near_copies, report.results["brain"])
        learned = held_out_notes([part.held_out for part in parts])
        report.warnings = [*of_copies, *learned, *filter(None, [table.repeats_stimuli(record.split)])]
        report.notes = [*first_notes, *of_copies, *report.notes]
        write_report(out, report, scores, rows, truth, grid_rows=_grid_rows(record.method, rows))
        score = {name: value["value"] for name, value in report.results["brain"].items() if value is not None}
        config = {"model": name, "recipe": record.recipe, "protocol": self.protocol.name}
        look = name_of_look(record.split, tested, num_folds)
        fingerprints = {str(fold): fingerprint for fold, fingerprint in tested.items()}
        record_look(table.path, table.fingerprint, look, config, score, test_trials=fingerprints)
        return report


class _Drawing:
    """Draws every row of one subject with the same settings and noise."""

    def __init__(self, pipeline: FmriToImagePipeline, drawn_by: SeededDrawing, count: int, subject: str) -> None:
        self.pipeline, self.drawn_by, self.count = pipeline, drawn_by, count
        self.subject_ids = torch.full((count,), pipeline.processor.subject_names.index(subject))

    def decode(self, model: FmriPreTrainedModel, features: torch.Tensor) -> FmriDecoding:
        """Decodes the features (N, own width) of the subject."""
        width = max(model.config.num_voxels)
        padded = torch.nn.functional.pad(features, (0, width - features.shape[1]))
        sources = self.drawn_by.sources(self.count)
        return model.decode(padded, self.subject_ids, self.drawn_by.settings.num_candidates, sources)

    def row(self, decoding: FmriDecoding) -> RowData:
        """Pictures and retrieval embeddings of what was decoded."""
        return RowData(images=self.draw(decoding), retrieval_embeds=decoding.retrieval_embeds)

    def draw(self, decoding: FmriDecoding, **changes: Any) -> torch.Tensor:
        """Pictures (N, C, H, W) of what was decoded; `changes` replace single settings."""
        settings = {**self.drawn_by.call(), **changes}
        sources = self.drawn_by.sources(self.count)
        with self.drawn_by.computing(self.pipeline.device):
            images = self.pipeline.generate(
                decoding, **settings, generator=sources, output_type="pt", num_patterns=self.count
            ).images
        assert isinstance(images, torch.Tensor)
        return images

    def unconditional(self) -> torch.Tensor:
        """Pictures of the generator that was told nothing."""
        left_out = ("num_candidates", "selection")
        settings = {key: value for key, value in self.drawn_by.call().items() if key not in left_out}
        with self.drawn_by.computing(self.pipeline.device):
            output = self.pipeline.image_generator(
                num_images=self.count, **settings, generator=self.drawn_by.sources(self.count), output_type="pt"
            )
        return output.images

    def ceilings(self, truth: torch.Tensor) -> dict[str, Callable[[], RowData]]:
        """Pictures from the true embedding and latent."""
        generator, config = self.pipeline.image_generator, self.pipeline.brain_model.config
        latents = None if config.latent_space is None else generator.encode_images(truth)
        embeds = None if config.image_embedding_space is None else generator.embed_images(truth)
        complete = FmriDecoding(image_embeds=embeds, latents=latents, retrieval_embeds=embeds)
        ways = {"ceiling": lambda: RowData(images=self.draw(complete))}
        if generator.generates_from_embeddings and embeds is not None and latents is not None:
            embeds_only = FmriDecoding(image_embeds=embeds, retrieval_embeds=embeds)
            ways["ceiling_embeds_only"] = lambda: RowData(images=self.draw(embeds_only))
        return ways


def _drawn_rows(
    ways: Mapping[str, Callable[[], RowData]],
    pipeline: FmriToImagePipeline,
    reference: FmriToImagePipeline | None,
    subject: str,
    count: int,
) -> dict[str, RowData]:
    """Draws each row, with a bar that names it; `subject` is empty where there is one only."""
    rows = {}
    for number, (name, draw) in enumerate(ways.items(), start=1):
        of_subject = f" of {subject}" if subject else ""
        what = f"Drawing row {number} of {len(ways)} drawn rows{of_subject}, {get_row(name).label}"
        with ExitStack() as stack:
            for each in (pipeline, reference):
                if each is not None:
                    stack.enter_context(progress.named(each, what, each.image_generator))
            if name == "floor":
                # Drawn by the generator itself, whose own bars the pipeline has turned off.
                done = stack.enter_context(progress.bar(name=what, total=count, unit="picture"))
            rows[name] = draw()
            if name == "floor":
                done.update(count)
    return rows


@dataclass
class _NoiseFreeTrials:
    """Test trials whose betas are the simulator's responses without noise."""

    subject: str
    stimulus_ids: np.ndarray
    sessions: np.ndarray
    responses: np.ndarray

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def fmri(self, rows: np.ndarray) -> np.ndarray:
        return self.responses[rows]


class SavedPipeline:
    """A pipeline that is loaded when its turn comes.

    Args:
        source: Its folder, or its name on the Hub.
        unseen_session: What its processor does with sessions of which it has no statistics; None leaves it as it is.
    """

    def __init__(self, source: str | os.PathLike, unseen_session: UnseenSession | None = None) -> None:
        self.source = source
        self.unseen_session = unseen_session
        self._loaded: FmriToImagePipeline | None = None

    def load(self) -> FmriToImagePipeline:
        """The pipeline; one from the Hub is loaded once.

        Raises:
            FmriModelsError: It can't be loaded, or its processor was never fitted.
        """
        loaded = self._loaded or FmriToImagePipeline.from_pretrained(self.source, unseen_session=self.unseen_session)
        loaded.processor.check_fitted()
        return loaded

    def record(self, table: TrialTable) -> TrainingRecord:
        """How it was trained; refuses another table or split, whose test trials may have been trained on.

        Raises:
            FmriModelsError: It was trained on another table, the split was drawn again, or its record is damaged.
        """
        if Path(self.source).is_dir():
            record = TrainingRecord.load(self.source)
        else:
            # The record comes along with the pipeline.
            self._loaded = self.load()
            record = self._loaded.training_record
        if record is None:
            return TrainingRecord("unknown", table.name, table.fingerprint, "default", 0, ["train"], "average")
        check_trained_split(record, table, self.source)
        return record


def saved_pipelines(model: str | os.PathLike, unseen_session: UnseenSession | None = None) -> list[SavedPipeline]:
    """The pipeline of a folder or of that name on the Hub, or those in a folder's `fold00` …

    Raises:
        FmriModelsError: There is no pipeline.
    """
    folder = Path(model)
    if not folder.exists() and _REPOSITORY.fullmatch(os.fspath(model)):
        return [SavedPipeline(os.fspath(model), unseen_session)]
    recover(folder)
    if (folder / INDEX_FILE).is_file():
        return [SavedPipeline(folder, unseen_session)]
    # A split may have more than a hundred folds.
    found = [path.parent for path in folder.glob(f"fold[0-9][0-9]*/{INDEX_FILE}")]
    folds = sorted((path for path in found if _FOLD.fullmatch(path.name)), key=lambda path: int(path.name[4:]))
    if not folds:
        raise FmriModelsError(
            f"{one_line(model)} holds neither a pipeline ({INDEX_FILE}) nor folds of one (fold00, fold01 …)."
        )
    return [SavedPipeline(fold, unseen_session) for fold in folds]


def check_folds(saved: Sequence[SavedPipeline], records: Sequence[TrainingRecord]) -> None:
    """Refuses to merge what was not trained alike, or is tested on the same trials.

    Args:
        saved: Pipelines of folds.
        records: How each was trained.

    Raises:
        FmriModelsError: A fold is there twice, or two are of other splits or recipes.
    """
    of_fold: dict[tuple[str, int], SavedPipeline] = {}
    for each, record in zip(saved, records, strict=True):
        twin = of_fold.setdefault((record.split, record.fold), each)
        if twin is not each:
            raise FmriModelsError(
                f"{one_line(twin.source)} and {one_line(each.source)} were both trained on fold {record.fold} of the "
                f"split {record.split!r}, so that the same test trials would count twice; keep one of them."
            )
        for key, first, other in _differences_of_folds(records[0], record):
            raise FmriModelsError(
                f"{one_line(saved[0].source)} and {one_line(each.source)} were trained in different ways "
                f"({one_line(key, 80)} is {one_line(repr(first), 80)} and {one_line(repr(other), 80)}), so that no "
                "figure over both speaks of one method; train all folds with the same recipe, or evaluate each by "
                "itself."
            )


def _differences_of_folds(first: TrainingRecord, other: TrainingRecord) -> Iterator[tuple[str, Any, Any]]:
    """What differs between the trainings of two folds beyond what belongs to a fold."""
    described = [
        {"split": each.split, "method": each.method, "selection": _candidates(each), "recipe": each.recipe}
        for each in (first, other)
    ]
    found = [(key.removeprefix("recipe."), *values) for key, *values in differing(*described)]
    chosen = {str(key) for values in _candidates(first) for key in values}
    settled = {key.removesuffix("objective.selection") for key, *_ in found if _SETTLED.fullmatch(key)}
    for key, one, two in found:
        is_chosen = any(key == each or key.startswith(f"{each}.") for each in chosen)
        # What selection: auto has come to on the fold's trials, and with it the parts that are learned from.
        is_settled = any(key.startswith((f"{stage}objective.selection", f"{stage}train_on.")) for stage in settled)
        # Each fold may start from what was trained on the same fold of other data.
        is_start = _START.fullmatch(key) is not None and one is not None and two is not None
        if key not in ("fold", "folds") and not (is_chosen or is_settled or is_start):
            yield key, one, two


def _candidates(record: TrainingRecord) -> list[dict[str, Any]]:
    """The settings among which a selection chose; none without one."""
    found = (record.selection or {}).get("candidates")
    values = [each.get("values") for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return [each for each in values if isinstance(each, dict)]


_SETTLED = re.compile(r"stages\.\d+\.objective\.selection")
_START = re.compile(r"initial_model|stages\.\d+\.teacher")


def missing_folds_notes(table: TrialTable, records: Sequence[TrainingRecord]) -> list[str]:
    """A sentence on the folds of a split of which no pipeline is there; none if all are."""
    split, there = records[0].split, {record.fold for record in records}
    missing = [fold for fold in range(table.num_folds(split)) if fold not in there]
    if not missing:
        return []
    return [
        f"Only {named_folds(sorted(there))} of the {table.num_folds(split)} of the split {split!r} (from 0) "
        f"{'is' if len(there) == 1 else 'are'} evaluated: of {named_folds(missing)} there is no pipeline, and no "
        "figure here is one of the whole split."
    ]


_FOLD = re.compile(r"fold[0-9]{2,6}", re.ASCII)
# user/name, as the Hub has it.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def references_of(
    reference: str | os.PathLike,
    table: TrialTable,
    records: Sequence[TrainingRecord],
    unseen_session: UnseenSession | None = None,
) -> list[SavedPipeline]:
    """For each evaluated pipeline the reference that was trained on the same split and fold.

    Args:
        reference: A pipeline, or the folder of `fold00` … with one each.
        table: The trial table.
        records: Of the evaluated pipelines.
        unseen_session: As of [`SavedPipeline`].

    Raises:
        FmriModelsError: There is none, so that the reference may have learned from the test pictures.
    """
    found = {}
    pipelines = saved_pipelines(reference, unseen_session)
    of_pipelines = [each.record(table) for each in pipelines]
    check_folds(pipelines, of_pipelines)
    for saved, record in zip(pipelines, of_pipelines, strict=True):
        tested = [name for subject in table.subjects for name in _tested(table, subject, record)]
        if learned := learned_stimuli(record.learned_from or [], table, tested, record.split, record.fold):
            raise FmriModelsError(
                f"The reference {one_line(saved.source)}, or a model that its training started from, has learned from "
                f"{len(learned)} of the test pictures; train it without them."
            )
        found[record.split, record.fold] = saved
    for record in records:
        if (record.split, record.fold) not in found:
            trained = ", ".join(f"{split!r} fold {fold}" for split, fold in found)
            raise FmriModelsError(
                f"The reference {one_line(reference)} was trained on the split {trained} and the model on "
                f"{record.split!r} fold {record.fold}, so that it may have seen the test pictures; train it on the "
                "same split and folds."
            )
    return [found[record.split, record.fold] for record in records]


def _tested(table: TrialTable, subject: str, record: TrainingRecord) -> list[str]:
    return table.trials(subject, "test", record.split, record.fold).stimulus_ids.tolist()


def evaluate(
    model: str | os.PathLike,
    data: str | os.PathLike,
    out: str | os.PathLike,
    protocol: str | None = None,
    repetitions: Literal["average", "single"] = "average",
    settings: DrawingSettings | Mapping[str, Any] | None = None,
    reference: str | os.PathLike | None = None,
    overwrite: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
    unseen_session: UnseenSession | None = None,
    refit: Refit | None = None,
) -> Report:
    """Evaluates a saved pipeline on the test trials of a table and writes the report.

    Args:
        model: A pipeline's folder or its name on the Hub, or the folder of all folds' pipelines, which are merged into
            one report.
        data: Folder of the trial table.
        out: Folder for the report; other content of it stays.
        protocol: Name; `standard` if None.
        repetitions: Average test repetitions, or score single trials.
        settings: What is drawn with in the place of the pipeline's own settings: [`DrawingSettings`], or a mapping of
            what differs from the pipeline's.
        reference: Another pipeline to stand beside, or the folder of all folds' pipelines.
        overwrite: Write into a folder that has content: an earlier report is replaced, other files stay.
        seed: Of everything that is drawn at random; item i is drawn from `seed + i`.
        precision: What pictures are computed in: `"float32"`, or `"bfloat16"`, which a processor with instructions for
            it computes twice as fast.
        unseen_session: What the processor does with test trials of sessions without training trials, such as
            `"pooled"`; None leaves it as the pipeline has it.
        refit: Trains the method itself on exchanged pairs, for the row `permuted_training_own`, such as
            [`refit_on_exchanged_pairs`]; None leaves that row out.

    Raises:
        FmriModelsError: Model and table do not fit, or the output folder has content.
    """
    check_report_folder(out, overwrite)
    evaluation = Evaluation(
        model,
        Path(data),
        get_protocol(protocol),
        repetitions,
        settings,
        reference,
        seed,
        precision,
        unseen_session,
        refit,
    )
    return evaluation.run(out)


def _noise_free_trials(table: TrialTable, test: Trials) -> BetasOfTrials | None:
    found = table.noise_free(test.subject)
    if found is None:
        return None
    ids, responses = found
    row_of = {stimulus: row for row, stimulus in enumerate(ids)}
    if any(stimulus not in row_of for stimulus in test.stimulus_ids):
        return None
    rows = [row_of[stimulus] for stimulus in test.stimulus_ids]
    return _NoiseFreeTrials(test.subject, test.stimulus_ids, test.sessions, responses[rows])


def _joined_rows(parts: Sequence[Mapping[str, RowData]]) -> dict[str, RowData]:
    """Rows of several subjects and folds; a row that one of them lacks is left out."""
    names = [name for name in parts[0] if all(name in part for part in parts)]

    def joined(name: str, get: Callable[[RowData], torch.Tensor | None]) -> torch.Tensor | None:
        tensors = [get(part[name]) for part in parts]
        return None if any(t is None for t in tensors) else torch.cat([t for t in tensors if t is not None])

    return {
        name: RowData(joined(name, lambda row: row.images), joined(name, lambda row: row.retrieval_embeds))
        for name in names
    }


def _scene_factors(table: TrialTable, ids: Sequence[str]) -> list[SceneFactors] | None:
    """Factors of built-in scenes; None for other pictures."""
    names = {field.name for field in fields(SceneFactors)}
    factors = table.stimuli.factors(ids)
    if not all(
        name.startswith("scene") and set(scene or {}) == names for name, scene in zip(ids, factors, strict=True)
    ):
        return None
    return [SceneFactors(**scene) for scene in factors if scene]


def _backgrounds(factors: Sequence[Mapping[str, Any]]) -> list[str] | None:
    if not all("ground" in scene and "time_of_day" in scene for scene in factors):
        return None
    return [f"{scene['ground']}, {scene['time_of_day']}" for scene in factors]


def _describe_data(
    table: TrialTable, record: TrainingRecord, parts: Sequence[Evaluated], factors: Sequence[dict[str, str]] | None
) -> dict[str, Any]:
    subjects = list(dict.fromkeys(part.subject for part in parts))
    ceilings = {name: table.voxels(name) for name in subjects}
    values = [np.asarray(v.noise_ceiling) for v in ceilings.values() if v.noise_ceiling is not None]
    described: dict[str, Any] = {
        "name": table.name,
        "fingerprint": table.fingerprint,
        "simulated": table.simulated,
        "mean_noise_ceiling": float(np.nanmean(np.concatenate(values))) if values else None,
        "noise_ceiling_source": sorted({v.source for v in ceilings.values() if v.source}),
        "noise_ceiling_repetitions": sorted({v.repetitions for v in ceilings.values() if v.repetitions}),
        "num_voxels": {name: table.num_voxels(name) for name in subjects},
        "split": record.split,
        "folds": sorted({part.fold for part in parts}),
        "train_parts": record.train_parts,
        "test_items": sum(len(part.stimulus_ids) for part in parts),
        "test_trials": sum(len(part.held_out.trials) for part in parts),
        "repeats_stimuli": table.repeats_stimuli(record.split),
    }
    if factors is not None:
        trained = table.trials(subjects[0], record.train_parts, record.split, record.fold).stimulus_ids
        seen = [scene or {} for scene in table.stimuli.factors(sorted(set(trained.tolist())))]
        described["test_factor_combinations_seen_in_training"] = factor_combinations_seen(seen, factors)
    return described


def _grid_rows(method: str, rows: Mapping[str, RowData]) -> list[str]:
    """Rows of the grid; the linear method's own pictures once."""
    return [row for row in GRID_ROWS if row in rows and not (row == "ridge" and method == "linear")]


def _notes(
    table: TrialTable,
    record: TrainingRecord,
    pipeline: FmriToImagePipeline,
    rows: Mapping[str, RowData],
) -> list[str]:
    notes = []
    if table.simulated:
        notes.append("The brain activity is simulated; nothing here says how well a real brain can be read.")
    if pipeline.image_generator.limits is not None:
        notes.append(pipeline.image_generator.limits)
    if not pipeline.image_generator.generates_from_embeddings:
        embeds = pipeline.brain_model.config.image_embedding_space is not None
        notes.append(
            "The image generator draws from latents alone: brain is the decoded low-level picture"
            + (", and the embeddings serve retrieval." if embeds else ".")
        )
    if pipeline.brain_model.config.model_type == "fmri-linear":
        notes.append("The evaluated model is the linear method, so the rows brain and ridge are the same.")
    elif "permuted_training_own" not in rows:
        notes.append(
            "permuted_training is ridge regression, whatever the evaluated method is; --refit-permuted adds the method "
            "itself, trained on exchanged pairs."
        )
    if pipeline.processor.is_transductive:
        notes.append(
            "Unseen sessions are standardised with statistics of the test trials: the results are transductive."
        )
    if table.repeats_stimuli(record.split):
        notes.append(table.repeats_stimuli(record.split))
    if "shuffled_brain" not in rows:
        notes.append(
            "A subject has one test stimulus alone in a fold, where there is nothing to exchange, so the row "
            "shuffled_brain is missing."
        )
    if "noise_free" not in rows and table.simulated:
        notes.append("The table has no noise-free responses of these test stimuli, so that row is missing.")
    return notes


def _not_learned_from(table: TrialTable, record: TrainingRecord, parts: Sequence[Evaluated]) -> list[str]:
    """A sentence on the trials that are neither learned from nor tested."""
    if record.method == "unknown":
        return []
    unused = [part for part in (TRAIN, VALIDATION) if part not in record.train_parts]
    trials = [table.trials(part.subject, unused, record.split, part.fold) for part in parts] if unused else []
    count = sum(len(each) for each in trials)
    if count == 0:
        return ["All training and validation trials of the split were learned from."]
    stimuli = len({stimulus for each in trials for stimulus in each.stimulus_ids.tolist()})
    what = f"of {stimuli} stimuli"
    if table.repeats_stimuli(record.split):
        runs = {run for each in trials for run in zip(each.sessions.tolist(), each.runs.tolist(), strict=True)}
        what = listed((f"session {session} run {run}" for session, run in sorted(runs)), 10)
    folds = len({part.fold for part in parts})
    of_folds = f" in {folds} folds" if folds > 1 else ""
    return [f"Besides the test trials, {count} {' and '.join(unused)} trials{of_folds} were not learned from ({what})."]


def _compared_with_training(decoding: FmriDecoding) -> tuple[Target, torch.Tensor]:
    if decoding.retrieval_embeds is not None:
        return "image_embeds", decoding.retrieval_embeds
    if decoding.latents is not None:
        return "latents", decoding.latents
    raise FmriModelsError("The model decodes neither embeddings nor latents; an evaluation needs one of them.")
