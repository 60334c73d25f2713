"""From a saved pipeline and a trial table to a report: every row on the same test stimuli."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers.utils import logging

from .. import progress
from ..data.schema import TEST
from ..data.split_files import part_fingerprints
from ..data.splits import named_folds, untested_sentences
from ..data.table import TrialTable
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..names import listed, one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..processing.options import UnseenSession
from ..training_record import TrainingRecord
from .attention import attention_content, attention_notes
from .audit import audit_content, audit_notes, audit_parts
from .controls import LinearReferences
from .deviations import on_drawing
from .drawn_items import DrawnItems
from .drawn_rows import SubjectRows, draw_rows
from .evaluated_guides import evaluate_guides, guides_of
from .evaluated_pipelines import (
    EvaluatedPipeline,
    check_folds,
    evaluated_pipelines,
    missing_folds_notes,
    references_of,
    tested_stimuli,
)
from .evaluated_subject import EvaluatedSubject
from .extractors import extractor_of_all
from .further_pictures import further_pictures
from .guide_report import guides_content
from .held_out import held_out_notes, subjects_in_table
from .judges import check_judges
from .learning import describe_rows, generator_of_references, notes_on_learning
from .looks import check_log, looks_at_folds, looks_sentence, name_of_look, record_look
from .named_metrics import SMALLEST_NETWORK_PICTURE
from .near_copies import near_copies_content, near_copies_notes, near_copies_of_folds
from .picture_groups import closest_pairs
from .protocols import ExchangeWithin, Protocol, get_protocol
from .raters.pack import PackRequest, write_pack
from .repetition_curve import SubjectCurve, curve_content, draw_curve
from .report import Report
from .report_description import (
    described_data,
    described_model,
    imagery_learned,
    notes_on_imagery,
    notes_on_sessions,
    notes_on_unused_trials,
    notes_on_what_was_measured,
    reasons_of_missing_rows,
)
from .report_folder import check_report_folder, write_report
from .rows import check_rows, grid_rows
from .scores import Scores
from .seeded_drawing import Precision, SeededDrawing
from .split_gap import OtherSplit, gap_content
from .split_gap_words import gap_notes
from .synthesis import synthesis_content

logger = logging.get_logger(__name__)

Repetitions = Literal["average", "single", "curve"]
# Pipeline, table, training record and seed of the exchange ▶ the pipeline's brain model, trained on exchanged pairs.
Refit = Callable[[FmriToImagePipeline, TrialTable, TrainingRecord, int], FmriPreTrainedModel]


@dataclass
class Evaluation:
    """Evaluates a pipeline, or the pipelines of all folds, on the test trials of a table.

    Args:
        model: A pipeline's folder or its name on the Hub, or a folder of `fold00` … with one each.
        data: Folder of the trial table.
        protocol: Which metrics.
        repetitions: `"average"` a stimulus' test repetitions after standardisation, or score `"single"` trials;
            `"curve"` averages them, and draws the row `brain` of fewer averaged ones, too.
        settings: What is drawn with in the place of the pipeline's own settings; a mapping replaces single ones.
        reference: Another pipeline, or the folder of its `fold00` …, trained on the same split: the row `reference`,
            which is drawn with the same settings.
        seed: Of everything that is drawn at random; item i is drawn from `seed + i`.
        precision: What pictures are computed in.
        unseen_session: What the processor does with sessions of which it has no statistics; None leaves it as it is.
        refit: Trains the evaluated method anew on exchanged pairs, for the row `permuted_training_own`; None leaves
            that row out.
        rows: Which rows are drawn, beside that of the brain; None for all that there are. A report says what it lacks.
        weights: Folder with weights of the networks that measure.
        audit: Parts of the audit, see [`audit_parts`].
        split_gap: A report of the same method on another split of the table, to which the difference is taken.
        library: Among which pictures its part `library` looks, beside those that were learned from, see
            [`further_pictures`].
        rater_pack: What people are to be asked.
        guide_weights: Network ▶ file or folder of its weights, of networks whose layers are decoded.
    """

    model: str | os.PathLike
    data: Path
    protocol: Protocol
    repetitions: Repetitions = "average"
    settings: DrawingSettings | Mapping[str, Any] | None = None
    reference: str | os.PathLike | None = None
    seed: int = 0
    precision: Precision = "float32"
    unseen_session: UnseenSession | None = None
    refit: Refit | None = None
    rows: Sequence[str] | None = None
    weights: str | os.PathLike | None = None
    audit: Sequence[str] = ()
    split_gap: str | os.PathLike | None = None
    library: str | os.PathLike | None = None
    rater_pack: PackRequest | None = None
    guide_weights: Mapping[str, str] = field(default_factory=dict)

    def run(self, out: str | os.PathLike) -> Report:
        """Draws all rows, scores them, and writes the report."""
        started = time.perf_counter()
        # Refuses what can't be drawn with or measured before anything is read.
        SeededDrawing(DrawingSettings().changed(self.settings), self.seed, self.precision)
        self.protocol.check_names()
        chosen = check_rows(self.rows)
        parts = [part.name for part in audit_parts(self.audit)]
        if self.library is not None and "library" not in parts:
            raise FmriModelsError(
                f"The library {one_line(self.library)} is for a part of the audit that was not asked for; audit "
                "`library`, too, or leave the library out."
            )
        other = None if self.split_gap is None else OtherSplit.load(self.split_gap)
        table = TrialTable.open(self.data)
        check_log(table.path)
        saved = evaluated_pipelines(self.model, self.unseen_session)
        records = [each.record(table) for each in saved]
        check_folds(saved, records)
        if other is not None:
            self._check_other(other, table, records)
        if self.refit is not None and any(record.method == "unknown" for record in records):
            raise FmriModelsError(
                f"{one_line(self.model)} has no training record, so that nobody knows how to train it on exchanged "
                "pairs; evaluate without --refit-permuted."
            )
        if self.refit is not None and any(record.trains_generator for record in records):
            raise FmriModelsError(
                f"The training of {one_line(self.model)} trains its image generator, too, which would change the one "
                "that is evaluated; evaluate without --refit-permuted."
            )
        further = None if self.library is None else further_pictures(self.library, table)
        beside = None if self.reference is None else references_of(self.reference, table, records, self.unseen_session)
        tested = []
        untested: dict[str, list[int]] = {}
        drawing = None
        for number, (each, record) in enumerate(zip(saved, records, strict=True)):
            folds = f" (fold {number + 1} of {len(saved)})" if len(saved) > 1 else ""
            with progress.phase(f"Loading the pipeline{folds}"):
                pipeline = each.load()
            if pipeline.image_generator is None and pipeline.brain_model.config.guide_spaces:
                return evaluate_guides(self, table, saved, records, Path(out), started)
            if pipeline.image_generator is None:
                raise FmriModelsError(
                    f"{one_line(each.source)} has no image generator, so that it draws nothing to be measured; give it "
                    "one, or measure what it decodes: `fmri-models evaluate --embeddings DECODED.npy --truth TRUE.npy`."
                )
            drawing = self._drawing(pipeline, drawing)
            self._check_networks(pipeline, drawing)
            if other is not None:
                other.check_drawn(
                    [
                        name
                        for name in subjects_in_table(pipeline, table, record)
                        if tested_stimuli(table, name, record, self.protocol.measured_trials)
                    ],
                    type(pipeline.image_generator).__name__,
                )
            reference = None if beside is None else beside[number].load()
            # Fitted for all subjects at once, when the first of them asks.
            generator = generator_of_references(pipeline)
            references = None
            if generator is not None:
                with progress.phase("Reading the training trials for ridge"):
                    references = LinearReferences(pipeline, generator, table, record, self.seed)
            refitted = None
            if self.refit is not None:
                with progress.phase("Training the method itself on exchanged pairs"):
                    refitted = self.refit(pipeline, table, record, self.seed)
            for subject in subjects_in_table(pipeline, table, record):
                if not tested_stimuli(table, subject, record, self.protocol.measured_trials):
                    untested.setdefault(subject, []).append(record.fold)
                    continue
                of_subject = EvaluatedSubject(
                    pipeline,
                    drawing,
                    record,
                    table,
                    subject,
                    references,
                    "single" if self.repetitions == "single" else "average",
                    reference,
                    refitted,
                    extractor_of_all(self.protocol.extractors),
                    self.weights,
                    self.protocol.measured_trials,
                    self.protocol.low_level_share,
                    samples=self._samples(pipeline, drawing),
                    extractors=self.protocol.extractors,
                    library=further,
                )
                tested.append(self._drawn(of_subject, chosen))
        if not tested:
            folds = named_folds([record.fold for record in records])
            kind, way = {
                "imagined": ("imagery", " (`fmri-models data split --by imagery`)"),
                "seen": ("test trials of pictures seen among the test", ""),
            }.get(self.protocol.measured_trials, ("test", ""))
            raise FmriModelsError(
                f"{one_line(table.path)} has no {kind} trials of {listed(untested)} in {folds} of the split "
                f"{records[0].split!r}; evaluate other folds, or train on a split that has some{way}."
            )
        assert drawing is not None
        notes = untested_sentences(untested, records[0].split)
        if self._is_of_folds(saved):
            notes = [*missing_folds_notes(table, records), *notes]
        return self._report(table, pipeline, drawing, records, tested, Path(out), started, notes, other)

    def _check_other(self, other: OtherSplit, table: TrialTable, records: Sequence[TrainingRecord]) -> None:
        """Refuses a report that differs in more than the split."""
        rows = table.split_rows(records[0].split)
        tests = {record.fold: part_fingerprints(rows, record.fold)[TEST] for record in records}
        protocol = self.protocol.with_trial_average(self.repetitions != "single")
        other.check(protocol, table.fingerprint, records[0].split, records[0].method, tests)

    def _check_networks(self, pipeline: FmriToImagePipeline, drawing: SeededDrawing) -> None:
        """Refuses networks that can't measure, before anything is drawn."""
        generator = pipeline.image_generator
        check_judges(self.protocol.extractors, generator, drawing.settings)
        if min(generator.image_size[1:]) < SMALLEST_NETWORK_PICTURE:
            return
        self.protocol.check_available(weights=self.weights)

    def _drawn(self, of: EvaluatedSubject, chosen: Sequence[str] | None) -> SubjectRows:
        """A subject's rows, with what the permutation test and the curve over repetitions need."""
        within = self.protocol.exchange_within
        # Refused before pictures are drawn.
        blocks = None if within is None else of.recorded_in(within)
        rows = draw_rows(of, chosen)
        rows.blocks = blocks
        if of.pipeline.brain_model.config.guide_spaces:
            rows.guides = guides_of(of, self.guide_weights)
        rows.curve = draw_curve(of) if self.repetitions == "curve" else None
        for part in audit_parts(self.audit):
            with progress.phase(f"Auditing {of.subject}: {part.label}"):
                rows.audit[part.name] = part.measure(of)
        return rows

    def _samples(self, pipeline: FmriToImagePipeline, drawing: SeededDrawing) -> int:
        """How many pictures of each response are drawn: one where nothing is random, since all would be the same."""
        return self.protocol.samples if "num_candidates" in pipeline.settings_used(drawing.settings) else 1

    def _is_of_folds(self, saved: Sequence[EvaluatedPipeline]) -> bool:
        """Whether what is evaluated is a folder of folds, and not a single pipeline."""
        return os.fspath(saved[0].source) != os.fspath(Path(self.model)) and Path(self.model).is_dir()

    def _drawing(self, pipeline: FmriToImagePipeline, earlier: SeededDrawing | None) -> SeededDrawing:
        """How a pipeline draws; those of all folds draw alike, since one report speaks of them all."""
        if earlier is None and isinstance(self.settings, Mapping):
            pipeline.warn_of_unused(self.settings)
        own = pipeline.drawing_settings
        fixed = {name: value for name, value in self.protocol.drawing.items() if name in pipeline.settings_used(own)}
        drawing = SeededDrawing(own.changed(fixed).changed(self.settings), self.seed, self.precision)
        if earlier is None and self.precision == "bfloat16":
            logger.info(
                "Pictures are drawn in bfloat16 here; those of a call of the pipeline, in float32, differ a little."
            )
        if earlier is not None and drawing != earlier:
            raise FmriModelsError(
                f"The folds of {one_line(self.model)} draw with other settings than each other "
                f"({earlier.settings.to_dict()} and {drawing.settings.to_dict()}); give the settings that all are "
                "measured with."
            )
        return drawing

    def _report(
        self,
        table: TrialTable,
        pipeline: FmriToImagePipeline,
        drawing: SeededDrawing,
        records: Sequence[TrainingRecord],
        tested: Sequence[SubjectRows],
        out: Path,
        started: float,
        first_notes: Sequence[str],
        other: OtherSplit | None = None,
    ) -> Report:
        """Scores what was drawn, describes it, and writes the report."""
        record = records[0]
        items = DrawnItems.joined(tested, table)
        drawn = time.perf_counter() - started
        averaged = self.repetitions != "single"
        # One where nothing is random, in which all that a protocol asks for are the same.
        samples = max(each.samples for each in tested)
        protocol = self.protocol.with_trial_average(averaged).drawing_samples(samples)
        scores = items.scores(protocol, self.seed, weights=self.weights)
        copies = near_copies_of_folds(table, record.split, subjects_in_table(pipeline, table, record), items.folds)
        near_copies = near_copies_content(copies, items, protocol, self.seed, self.weights)
        name = Path(self.model).name if Path(self.model).is_dir() else os.fspath(self.model)
        num_folds = table.num_folds(record.split)
        trials_of_split = table.split_rows(record.split)
        test_trials = {fold: part_fingerprints(trials_of_split, fold)[TEST] for fold in sorted(set(items.folds))}
        looks = looks_at_folds(table.path, table.fingerprint, record.split, test_trials)
        held_out = [each.held_out for each in tested]
        learned = held_out_notes(held_out)
        nearest_by = [each.nearest_by for each in tested if each.nearest_by is not None]
        missing = reasons_of_missing_rows(tested, items.rows)
        curves = [each.curve for each in tested if each.curve is not None]
        curve, curve_notes = self._curve(curves, items, protocol)
        audit = self._audit(tested, items, scores, protocol)
        attention = attention_content((each.subject, each.attention) for each in tested)
        # Those of one pipeline, and not of one a fold.
        alone = [each.subject for each in tested] if len(set(items.folds)) == 1 else []
        synthesis, synthesis_notes = synthesis_content(pipeline, table, alone)
        progress.say("Summing up: intervals and the permutation test")
        report = Report.from_scores(
            scores,
            protocol,
            data=described_data(table, record, tested, items.factors)
            | {"test_fingerprints": {str(fold): fingerprint for fold, fingerprint in test_trials.items()}},
            model=described_model(name, pipeline, record, drawing, held_out),
            timing={"rows_s": drawn, "total_s": time.perf_counter() - started},
            seed=self.seed,
            looks=[look for look, _ in looks],
            notes=[
                *learned,
                *dict.fromkeys(note for each in tested for note in each.notes),
                *notes_on_what_was_measured(table, record, pipeline, items.rows),
                *notes_on_imagery(tested),
                *notes_on_sessions(tested, self.protocol.exchange_within),
                *curve_notes,
                *audit_notes(audit),
                *notes_on_learning(pipeline, record, items.rows, nearest_by),
                *dict.fromkeys(missing.values()),
                *attention_notes(attention),
                *synthesis_notes,
                looks_sentence(looks, test_trials, num_folds),
                *notes_on_unused_trials(table, record, tested),
            ],
            missing_rows=missing,
            deviations=on_drawing(
                self.protocol,
                pipeline.settings_used(drawing.settings),
                averaged,
                pipeline.brain_model.config.space("latent_space") is not None,
                imagery_learned(table, record, tested),
            ),
            samples=self.protocol.samples,
        )
        report.repetition_curve, report.audit = curve, audit
        report.training_curve = {
            str(each.fold): [dict(point) for point in each.curve] for each in records if each.curve
        }
        if guides := [each.guides for each in tested if each.guides is not None]:
            spaces = {name: space.to_dict() for name, space in pipeline.brain_model.config.guides.items()}
            report.guides = guides_content(guides, spaces, self.seed)
        describe_rows(report.rows, pipeline, record, nearest_by)
        report.near_copies = near_copies
        report.attention, report.synthesis = attention, synthesis
        of_copies = near_copies_notes(near_copies, report.results["brain"])
        report.warnings = [
            *of_copies,
            *learned,
            *filter(None, [table.repeats_stimuli(record.split)]),
            *table.cautions,
        ]
        report.notes = [*first_notes, *of_copies, *report.notes]
        if other is not None:
            with progress.phase("Comparing both splits"):
                report.split_gap = gap_content(report, scores, items, protocol, table, other, self.seed, self.weights)
            report.notes += gap_notes(report.split_gap)
        shown = grid_rows(items.rows, record.method)
        brain = items.rows["brain"].images
        nearest = [] if brain is None else closest_pairs(report, scores, items.truth, brain, table.stimuli)
        write_report(out, report, scores, items.rows, items.truth, grid_rows=shown, further_groups=nearest)
        score = {name: value["value"] for name, value in report.results["brain"].items() if value is not None}
        config = {"model": name, "recipe": record.recipe, "protocol": self.protocol.name}
        look = name_of_look(record.split, test_trials, num_folds)
        fingerprints = {str(fold): fingerprint for fold, fingerprint in test_trials.items()}
        record_look(table.path, table.fingerprint, look, config, score, test_trials=fingerprints)
        if self.rater_pack is not None:
            write_pack(
                self.rater_pack,
                report,
                items.rows,
                items.truth,
                scores,
                protocol,
                folds=items.folds,
                weights=self.weights,
            )
        return report

    def _audit(
        self, tested: Sequence[SubjectRows], items: DrawnItems, scores: Scores, protocol: Protocol
    ) -> dict[str, Any]:
        """What the parts of the audit have found, where somebody asked."""
        parts = audit_parts(self.audit)
        measured = {part.name: [each.audit[part.name] for each in tested] for part in parts}
        return audit_content(
            parts, measured, items=items, scores=scores, protocol=protocol, seed=self.seed, weights=self.weights
        )

    def _curve(
        self, curves: Sequence[SubjectCurve], items: DrawnItems, protocol: Protocol
    ) -> tuple[dict[str, Any], list[str]]:
        """Scores over averaged repetitions where somebody asked, and a sentence where there can be none."""
        if self.repetitions != "curve":
            return {}, []
        with progress.phase("Scoring fewer averaged repetitions"):
            content = curve_content(curves, items, protocol, self.seed, self.weights)
        if content:
            return content, []
        return {}, ["Most test stimuli were shown once, so that there is no curve over averaged repetitions."]


def evaluate(
    model: str | os.PathLike,
    data: str | os.PathLike,
    out: str | os.PathLike,
    protocol: str | Protocol | None = None,
    repetitions: Repetitions = "average",
    settings: DrawingSettings | Mapping[str, Any] | None = None,
    reference: str | os.PathLike | None = None,
    overwrite: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
    unseen_session: UnseenSession | None = None,
    refit: Refit | None = None,
    rows: Sequence[str] | None = None,
    weights: str | os.PathLike | None = None,
    without: Sequence[str] = (),
    exchange_within: ExchangeWithin | None = None,
    audit: Sequence[str] = (),
    samples: int | None = None,
    split_gap: str | os.PathLike | None = None,
    library: str | os.PathLike | None = None,
    rater_pack: PackRequest | None = None,
    guide_weights: Mapping[str, str] | None = None,
) -> Report:
    """Evaluates a saved pipeline on the test trials of a table and writes the report.

    Args:
        model: A pipeline's folder or its name on the Hub, or the folder of all folds' pipelines, which are merged into
            one report.
        data: Folder of the trial table.
        out: Folder for the report; other content of it stays.
        protocol: Name or protocol; `standard` if None.
        repetitions: `"average"` test repetitions, or score `"single"` trials; `"curve"` averages them, and draws the
            reconstruction of 1, 2, 3, 4, 8, 16 … averaged repetitions, too.
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
        rows: Names of the rows that are drawn, beside that of the brain; None for all that there are. Comparisons of
            many trainings need no controls of each; a report of a single one does.
        weights: Folder with weights of the networks that measure, under the names that they were published with.
        without: Metrics, or networks for all of their metrics, that are left out; `"unavailable"` for those of all
            networks that can't be had.
        exchange_within: Inside what alone the permutation test exchanges stimuli: `"session"`, `"run"` or `"block"`,
            where responses may have that in common; None for a subject's whole test set, or what the protocol says.
        audit: Parts of the audit that are measured, too; `["all"]` for all of them.
        samples: How many pictures of each response are drawn, over which scores are a mean; None for the protocol's.
        split_gap: Report (or its folder) of the same method, protocol and subjects on another split of the table: how
            much better the method is there is measured, too.
        library: Pictures among which the audit's part `library` looks, beside those that were learned from: a folder, a
            zip file, a trial table, or `builtin:scenes` (10,000 of them; `builtin:scenes:NUMBER` any number).
        rater_pack: What people are to be asked, for which a folder is written beside the report.
        guide_weights: Network ▶ file or folder of its weights, of networks whose layers are decoded; on the machine of
            the training none are needed, where layers of the table's pictures are kept.

    Raises:
        FmriModelsError: Model and table do not fit, or the output folder has content.
    """
    check_report_folder(out, overwrite)
    if rater_pack is not None:
        rater_pack.check_free(out)
    evaluation = Evaluation(
        model,
        Path(data),
        get_protocol(protocol)
        .without(without, weights=weights)
        .exchanging_within(exchange_within)
        .drawing_samples(samples),
        repetitions,
        settings,
        reference,
        seed,
        precision,
        unseen_session,
        refit,
        rows,
        weights,
        audit,
        split_gap,
        library,
        rater_pack,
        dict(guide_weights or {}),
    )
    return evaluation.run(out)
