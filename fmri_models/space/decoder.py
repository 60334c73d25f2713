"""A pipeline and the trials that it has not learned from: what the page, or anybody, may ask of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.generator_pictures import pictures_to_embed
from ..data.stimulus_pictures import stimulus_pictures
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..evaluation.held_out import HeldOut, held_out_notes, held_out_trials
from ..evaluation.seeded_drawing import SeededDrawing
from ..evaluation.silenced_regions import reference_response, scaled_region, voxels_read
from ..modeling_outputs import FmriDecoding
from ..names import listed, markdown, one_line
from ..pipeline_fmri import FmriPipelineOutput, FmriToImagePipeline
from .limits import Tell, Watch
from .pictures import descriptions, enlarge

Labelled = tuple[Image.Image, str]


@dataclass(frozen=True)
class Reconstruction:
    """What the page shows of one pattern.

    Attributes:
        shown: The picture that the subject saw; None where nobody knows.
        reconstructed: The picture that the decoder made of the responses.
        low_level: The decoded low-level picture alone; None where the method decodes none.
        candidates: All that were drawn where several were, with a line of text each.
        summary: What was done, in sentences.
    """

    shown: Image.Image | None
    reconstructed: Image.Image
    low_level: Image.Image | None
    candidates: list[Labelled]
    summary: str


@dataclass(frozen=True)
class Ranking:
    """Test pictures by how similar their embeddings are to the decoded one.

    Attributes:
        best: The most similar ones, with a line of text each; empty where there is nothing to compare with.
        summary: Where the one that was shown stands, in a sentence.
    """

    best: list[Labelled]
    summary: str


@dataclass(frozen=True)
class Change:
    """One picture drawn from all responses, and one from those of which a region's were scaled.

    Attributes:
        unchanged, changed: The pictures, drawn from the same noise.
        summary: What was done, in sentences.
    """

    unchanged: Image.Image
    changed: Image.Image
    summary: str


@dataclass(frozen=True)
class Contributions:
    """What each region adds to what is decoded of one stimulus.

    Attributes:
        by_region: Region ▶ its contribution.
        compares_embeddings: Whether that is what the cosine of the decoded embedding with the shown picture's loses
            when the region is silenced; else the share by which what is decoded changes.
    """

    by_region: dict[str, float]
    compares_embeddings: bool


class Decoder:
    """A pipeline and the test trials, of the split and fold that it was trained on, that it has not learned from.

    Calls of several threads wait for each other: a pipeline has one scheduler, whose state is that of one picture.

    Args:
        pipeline: The pipeline.
        table: The trial table; of another one than that of the training, the test trials of its split `default` are
            taken, and `about` says what nobody knows of them.

    Attributes:
        subjects: Those of the table who have such trials.
        about: What they are, as Markdown.

    Raises:
        FmriModelsError: They have no subject with such trials in common, or the split was drawn again after the
            training.
    """

    def __init__(self, pipeline: FmriToImagePipeline, table: TrialTable) -> None:
        self.pipeline, self.table = pipeline, table
        shared = [subject for subject in table.subjects if subject in pipeline.processor.subject_names]
        held_out = {
            subject: held_out_trials(pipeline, table, subject, any_table=True, may_be_empty=True) for subject in shared
        }
        self._held_out = {subject: each for subject, each in held_out.items() if _unlearned(each)}
        self.subjects = list(self._held_out)
        if not self.subjects:
            raise FmriModelsError(_nothing_unlearned(pipeline, table, held_out))
        self.about = _about(table, list(held_out.values()))
        self._gallery = cache(self._embedded_gallery)
        self._drawing = Lock()
        pipeline.set_progress_bar_config(disable=True)

    def stimulus_ids(self, subject: str) -> list[str]:
        """Stimuli that a subject saw and the pipeline has not learned from, sorted."""
        return _unlearned(self._held_out[subject])

    def pictures(self, stimulus_ids: Sequence[str]) -> list[Image.Image | None]:
        """Pictures of stimuli, in their own size; None where the table has none."""
        return stimulus_pictures(self.table, stimulus_ids)

    def regions(self, subject: str) -> list[str]:
        """Names of the ROIs of which the pipeline reads voxels of a subject, in the order of the voxels."""
        return _names(self._read_roi(subject))

    def settings_used(self) -> dict[str, Any]:
        """The pipeline's drawing settings that change what it draws, by name."""
        return self.pipeline.settings_used(self.pipeline.drawing_settings)

    @torch.no_grad()
    def reconstruct(
        self,
        subject: str,
        stimulus_id: str,
        seed: int = 0,
        settings: DrawingSettings | None = None,
        tell: Tell | None = None,
    ) -> Reconstruction:
        """Decodes the mean response of a subject to all repetitions of a stimulus.

        With the pipeline's own settings and an evaluation's seed, the picture is that of its report: it is drawn from
        the item's own noise.

        Args:
            subject: The subject.
            stimulus_id: One of its stimuli.
            seed: Of the evaluation; item i is drawn from `seed + i`.
            settings: What is drawn with; the pipeline's own without.
            tell: Told of the share that is done.

        Raises:
            FmriModelsError: The subject did not see the stimulus in these trials, or drawing takes too long.
        """
        positions = self._positions(subject, stimulus_id)
        features, subject_ids = self._mean_features(subject, positions)
        with self._drawing:
            output = self._drawn(features, subject_ids, self._item(subject, stimulus_id), seed, settings, tell)
        shown = self.pictures([stimulus_id])[0]
        responses = "one response" if len(positions) == 1 else f"the mean of {len(positions)} responses"
        seen = descriptions(self.table, [stimulus_id])[0]
        summary = f"Decoded from {responses} of {subject} ({self.origin}), who saw: {seen}."
        return _reconstruction(output, None if shown is None else enlarge(shown), summary)

    @torch.no_grad()
    def reconstruct_betas(
        self,
        betas: np.ndarray,
        subject: str,
        session: int | None = None,
        seed: int = 0,
        settings: DrawingSettings | None = None,
        tell: Tell | None = None,
    ) -> list[Image.Image]:
        """Draws a picture of each of somebody's own patterns.

        Args:
            betas: (n, voxels), as they were recorded.
            subject: The subject of the pipeline that they are of.
            session: Their session, where the processor keeps statistics by session.
            seed: As in [`reconstruct`].
            settings: As in [`reconstruct`].
            tell: As in [`reconstruct`].

        Raises:
            FmriModelsError: They do not fit the processor, or drawing takes too long.
        """
        inputs = self.pipeline.processor(betas, subject=subject, session=session)
        with self._drawing:
            output = self._drawn(inputs["fmri"], inputs["subject_ids"], range(len(betas)), seed, settings, tell)
        return [enlarge(picture) for picture in output.images]

    @torch.no_grad()
    def rank(self, subject: str, stimulus_id: str, seed: int = 0, most: int = 10) -> Ranking:
        """Ranks the subject's test pictures by the cosine of their embeddings with the decoded one.

        Raises:
            FmriModelsError: The subject did not see the stimulus in these trials.
        """
        positions = self._positions(subject, stimulus_id)
        features, subject_ids = self._mean_features(subject, positions)
        with self._drawing:
            gallery = self._gallery(subject)
            drawing = SeededDrawing(self.pipeline.drawing_settings, seed)
            sources = drawing.sources(self._item(subject, stimulus_id))
            decoding = self.pipeline.decode(features, subject_ids, generator=sources)
        if gallery is None or decoding.retrieval_embeds is None:
            return Ranking([], self._why_not_ranked(subject))
        scores, order = _cosines(decoding, gallery)[0].sort(descending=True, stable=True)
        ids = self.stimulus_ids(subject)
        ranked = [ids[index] for index in order.tolist()]
        shown = ranked[:most]
        named = zip(self.pictures(shown), shown, scores.tolist()[:most], descriptions(self.table, shown), strict=True)
        best = [
            (enlarge(picture), f"{rank}. {score:.2f}{' (was shown)' if name == stimulus_id else ''}: {description}")
            for rank, (picture, name, score, description) in enumerate(named, start=1)
            if picture is not None
        ]
        place = ranked.index(stimulus_id) + 1
        summary = f"The picture that was shown is number {place} of {len(ids)} test pictures of {subject}."
        return Ranking(best, f"{summary} Guessing would give {(len(ids) + 1) / 2:g} on average.")

    @torch.no_grad()
    def change_region(
        self, subject: str, stimulus_id: str, region: str, gain: float, seed: int = 0, tell: Tell | None = None
    ) -> Change:
        """Draws from all responses, and from those of which one region's differences from their mean are scaled.

        Args:
            subject: The subject.
            stimulus_id: One of its stimuli.
            region: One of its ROIs.
            gain: 0 silences the region: its voxels then answer as they do to pictures on average.
            seed: As in [`reconstruct`].
            tell: As in [`reconstruct`].

        Raises:
            FmriModelsError: There is no such stimulus or region, or drawing takes too long.
        """
        positions = self._positions(subject, stimulus_id)
        roi = self._read_roi(subject)
        if region not in _names(roi):
            raise FmriModelsError(
                f"{subject} has no region {one_line(region, 80)}; its regions: "
                f"{listed(_names(roi), most=20) or 'none'}."
            )
        item, voxels = self._item(subject, stimulus_id), roi == region
        features, subject_ids = self._mean_features(subject, positions)
        (changed,) = self._scaled_features(subject, positions, [voxels], gain)
        with self._drawing:
            before, after = (
                _first(self._drawn(each, subject_ids, item, seed, None, tell).images) for each in (features, changed)
            )
        done = "silenced" if gain == 0 else f"scaled to {gain:g} times"
        read = self.pipeline.processor.subject(subject).selected
        those = "" if len(read) == len(roi) else " that the pipeline reads"
        return Change(
            before,
            after,
            f"{region} ({int(voxels.sum())} of {len(read)} voxels{those} of {subject}, {self.origin}): {done}, as "
            f"differences from {reference_response(self.pipeline.processor)}; everything else, the noise too, is the "
            "same in both pictures.",
        )

    @torch.no_grad()
    def contributions(self, subject: str, stimulus_id: str, seed: int = 0) -> Contributions:
        """How much worse the decoding is without each region.

        That is by how much the cosine of what is decoded with the shown picture's embedding falls when the region is
        silenced. Where a method has no embeddings, it is the share by which what it decodes changes.

        Raises:
            FmriModelsError: The subject did not see the stimulus in these trials, or regions can't be silenced.
        """
        positions = self._positions(subject, stimulus_id)
        roi = self._read_roi(subject)
        regions = _names(roi)
        whole, subject_ids = self._mean_features(subject, positions)
        without = self._scaled_features(subject, positions, [roi == region for region in regions], 0.0)
        features = torch.cat([whole, *without])
        item = self._item(subject, stimulus_id)
        drawing = SeededDrawing(self.pipeline.drawing_settings, seed)
        # The same noise for each, where a method samples.
        sources = [drawing.sources(item)[0] for _ in features]
        with self._drawing:
            gallery = self._gallery(subject)
            decoding = self.pipeline.decode(features, subject_ids.expand(len(features)), generator=sources)
        has_embeddings = gallery is not None and decoding.retrieval_embeds is not None
        if gallery is not None and has_embeddings:
            cosines = _cosines(decoding, gallery[[self.stimulus_ids(subject).index(stimulus_id)]])[:, 0]
            losses = cosines[0] - cosines[1:]
        else:
            decoded = _all_decoded(decoding, len(features))
            losses = (decoded[1:] - decoded[0]).norm(dim=1) / decoded[0].norm().clamp_min(1e-12)
        return Contributions(dict(zip(regions, losses.tolist(), strict=True)), has_embeddings)

    def wait(self, seconds: float) -> None:
        """Returns once nothing is drawn or decoded, or after some seconds."""
        if self._drawing.acquire(timeout=seconds):
            self._drawing.release()

    @property
    def origin(self) -> str:
        """What the responses are, in words."""
        return "a simulated brain" if self.table.simulated else "measured betas"

    def _trials(self, subject: str) -> Trials:
        return self._held_out[subject].trials

    def _positions(self, subject: str, stimulus_id: str) -> np.ndarray:
        if subject not in self.subjects or stimulus_id not in self.stimulus_ids(subject):
            raise FmriModelsError(
                f"{one_line(subject, 80)} has no test trial of stimulus {one_line(stimulus_id, 130)}; choose "
                "another one."
            )
        held_out = self._held_out[subject]
        own = held_out.trials.stimulus_ids == stimulus_id
        return np.flatnonzero(own & ~np.isin(held_out.trials.trials, sorted(held_out.learned_fmri)))

    def _item(self, subject: str, stimulus_id: str) -> range:
        """Number of a stimulus among all of the subject's test stimuli, as in an evaluation."""
        number = list(dict.fromkeys(self._trials(subject).stimulus_ids.tolist())).index(stimulus_id)
        return range(number, number + 1)

    def _read_roi(self, subject: str) -> np.ndarray:
        """(voxels,) region of each voxel that the table's patterns have, empty where the pipeline does not read it."""
        roi = np.array(self.table.voxels(subject).roi, dtype=object)
        return np.where(voxels_read(self.pipeline.processor.subject(subject), len(roi)), roi, "")

    def _betas(self, subject: str, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, voxels) recorded responses and (n,) sessions of some trials."""
        trials = self._trials(subject)
        groups = self.pipeline.processor.groups(trials.sessions[positions], trials.runs[positions])
        return trials.fmri(positions), groups

    def _mean_features(self, subject: str, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, width) mean of the processed responses, and the subject's id."""
        processor = self.pipeline.processor
        # Statistics of the trials given are those of all, as in an evaluation.
        given = np.arange(len(self._trials(subject))) if processor.is_transductive else positions
        betas, sessions = self._betas(subject, given)
        inputs = processor(betas, subject=subject, session=sessions.tolist())
        return _mean(inputs["fmri"][np.isin(given, positions)]), inputs["subject_ids"][:1]

    def _scaled_features(
        self, subject: str, positions: np.ndarray, several: Sequence[np.ndarray], gain: float
    ) -> list[torch.Tensor]:
        """(1, width) mean of the processed responses for each of several sets of voxels, which are scaled before."""
        processor = self.pipeline.processor
        statistics = processor.subject(subject)
        betas, sessions = self._betas(subject, positions)
        unknown = ~np.isin(sessions, statistics.sessions)
        if processor.is_transductive and unknown.any():
            raise FmriModelsError(
                f"Session {sessions[unknown][0]} of {subject} has no mean response of training, from which a region "
                "would differ: this page takes statistics from the trials themselves; start it with --unseen-session "
                "pooled."
            )
        scaled = (scaled_region(statistics, betas, sessions.tolist(), voxels, gain) for voxels in several)
        return [_mean(processor(each, subject=subject, session=sessions.tolist())["fmri"]) for each in scaled]

    def _drawn(
        self,
        features: torch.Tensor,
        subject_ids: torch.Tensor,
        items: range,
        seed: int,
        settings: DrawingSettings | None,
        tell: Tell | None,
    ) -> FmriPipelineOutput:
        settings = settings or self.pipeline.drawing_settings
        if tell is not None:
            # Who has waited may have left.
            tell(0.0)
        drawing = SeededDrawing(settings, seed)
        watch = Watch(settings.num_inference_steps, tell)
        decoding = self.pipeline.decode(
            features, subject_ids, settings.num_candidates, generator=drawing.sources(items)
        )
        output = self.pipeline.generate(
            decoding,
            **settings.to_dict(),
            generator=drawing.sources(items),
            num_patterns=len(features),
            callback_on_step_end=watch,
        )
        watch.check()
        return output

    def _embedded_gallery(self, subject: str) -> torch.Tensor | None:
        """(N, D) embeddings of the subject's test pictures; None if there are none, or no pictures."""
        generator, ids = self.pipeline.image_generator, self.stimulus_ids(subject)
        if generator is None or generator.image_embedding_space is None or not self._has_pictures(ids):
            return None
        pictures = pictures_to_embed(self.table.stimuli.images(ids), generator)
        return generator.embed_images(pictures).flatten(1).float().cpu()

    def _has_pictures(self, stimulus_ids: Sequence[str]) -> bool:
        return all(data is not None for _, data in self.table.stimuli.encoded(stimulus_ids))

    def _why_not_ranked(self, subject: str) -> str:
        generator = self.pipeline.image_generator
        if generator is None:
            return "This pipeline has no image generator, whose embeddings pictures are found with."
        if not self._has_pictures(self.stimulus_ids(subject)):
            return f"The table has not all pictures that {subject} saw, so that there is nothing to rank."
        return "This method, or its image generator, has no embeddings to find pictures with."


def _mean(features: torch.Tensor) -> torch.Tensor:
    """(1, width) mean of (n, width), to the last bit as an evaluation takes it."""
    return torch.from_numpy((np.add.reduceat(features.numpy(), [0], axis=0) / len(features)).astype(np.float32))


def _names(roi: np.ndarray) -> list[str]:
    """Names of regions, in the order of the voxels."""
    return [name for name in dict.fromkeys(roi.tolist()) if name]


def _nothing_unlearned(pipeline: FmriToImagePipeline, table: TrialTable, held_out: Mapping[str, HeldOut]) -> str:
    """Why there is nothing to be shown, and what to do about it."""
    if any(len(each.trials) for each in held_out.values()):
        return (
            f"The model has learned from all test trials of {listed(list(held_out), most=20)} in "
            f"{one_line(table.path)}, and none is left that is new to it; choose a table of other pictures, or train "
            "it on a split that holds some out."
        )
    return (
        f"The model was trained for {listed(pipeline.processor.subject_names, most=20)}, and {one_line(table.path)} "
        f"has no test trials of theirs (its subjects are {listed(table.subjects, most=20)}); choose the table that the "
        "model was trained on."
    )


def _unlearned(held_out: HeldOut) -> list[str]:
    """Stimuli of trials that were learned from neither by their pictures nor by their fMRI, sorted."""
    trials = held_out.trials
    unread = ~np.isin(trials.trials, sorted(held_out.learned_fmri))
    return sorted(set(trials.stimulus_ids[unread].tolist()) - held_out.learned)


def _about(table: TrialTable, found: list[HeldOut]) -> str:
    """What the test pictures are, and whether they are new to the model, as Markdown."""
    first = found[0]
    about = f"These are the test pictures of the split {first.split!r}, fold {first.fold}, of the table {table.name!r}"
    if all(each.is_unseen for each in found):
        return markdown(f"{about}; the model was not fitted on them.")
    if first.repeats_stimuli:
        about += "; the model was fitted on none of these responses, but on others to the same pictures"
    left_out = any(each.learned or each.learned_fmri for each in found)
    kept = " Those that it has learned from are left out here." if left_out else ""
    notes = [f"\n\n**{markdown(note)}**" for note in held_out_notes(found)]
    return "".join([markdown(f"{about}."), *notes, kept])


def _reconstruction(output: FmriPipelineOutput, shown: Image.Image | None, summary: str) -> Reconstruction:
    candidates: list[Any] = list(output.candidates[0]) if output.candidates is not None else []
    scores = [None] * len(candidates) if output.scores is None else output.scores[0].tolist()
    best = None if output.scores is None else int(output.scores[0].argmax())
    labelled = [
        (enlarge(picture), _candidate_label(number, score, number == best))
        for number, (picture, score) in enumerate(zip(candidates, scores, strict=True))
    ]
    low_level = None if output.low_level_images is None else _first(output.low_level_images)
    return Reconstruction(shown, _first(output.images), low_level, labelled, summary)


def _first(pictures: Any) -> Image.Image:
    return enlarge(pictures[0])


def _candidate_label(number: int, score: float | None, chosen: bool) -> str:
    similarity = "" if score is None else f": similarity {score:.3f}"
    return f"candidate {number + 1}{similarity}{' (chosen)' if chosen else ''}"


def _cosines(decoding: FmriDecoding, gallery: torch.Tensor) -> torch.Tensor:
    """(N, M) cosines of what was decoded and the gallery's rows."""
    assert decoding.retrieval_embeds is not None
    decoded = decoding.retrieval_embeds.flatten(1).float().cpu()
    return torch.nn.functional.cosine_similarity(decoded[:, None], gallery[None], dim=-1)


def _all_decoded(decoding: FmriDecoding, number: int) -> torch.Tensor:
    """(number, …) everything that was decoded of each pattern, side by side."""
    return torch.cat([values.float().cpu().reshape(number, -1) for values in decoding.tensors.values()], dim=1)
