"""What the rows of one subject on one fold are drawn from, and how: alike, and from the same noise."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch

from .. import progress
from ..conditions import Conditions
from ..data.generator_pictures import pictures_to_embed, prepare_pictures
from ..data.processed import ProcessedTrials
from ..data.schema import labelled_parts
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..data.target_options import TargetOptions
from ..data.targets import cached_targets
from ..drawing_request import DrawingRequest
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..modeling_fmri import FmriPreTrainedModel
from ..modeling_outputs import FmriDecoding
from ..names import one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..scenes import SceneFactors
from ..training_record import TrainingRecord
from .controls import LinearReferences, exchange_stimuli
from .further_pictures import FurtherPictures
from .held_out import HeldOut, held_out_trials
from .learning import floor_of
from .named_metrics import SMALLEST_NETWORK_PICTURE
from .noise_free import noise_free_trials
from .protocols import ExchangeWithin, Measured
from .row_data import RowData
from .scored_items import picture_ids
from .seeded_drawing import SeededDrawing
from .silenced_regions import SilencedTrials
from .stimulus_vectors import StimulusVectors
from .training_pictures import NearEmbeddings, NearFeatures, Nearness, TrainingPictures

_TRIALS_A_BATCH = 256


@dataclass(eq=False)
class EvaluatedSubject:
    """One subject's test items of a fold, and what rows are drawn from; each made when it is first asked for.

    Args:
        pipeline: What is evaluated.
        drawn_by: How every row is drawn.
        record: How the pipeline was trained.
        table: The trial table.
        subject: Name.
        references: Ridge, on true and on exchanged pairs; None where nothing draws from what it would decode.
        repetitions: Whether an item is a stimulus, its repetitions averaged, or a trial.
        reference: Another pipeline to stand beside; None for none.
        refitted: The pipeline's model, trained on exchanged pairs; None where it was not.
        extractor: Name of a network that may tell how near pictures are to each other; None for none.
        weights: Folder with weights of such networks.
        measured: Which of the test trials are measured.
        low_level_share: Share of the decoded low-level picture that is mixed into what is drawn.
        max_repetitions: How many repetitions of a stimulus are averaged at most, the first ones; None for all.
        samples: How many pictures are drawn of each response: the items are all responses, and then all of them again.
        extractors: Names of all networks that measure.
        library: Pictures among which an audit looks for the nearest, beside those that were learned from.
        rows: Name ▶ those that were drawn so far.
        rows_of_fewer: Number of averaged repetitions ▶ the row `brain` of so many, as far as it was drawn.
        doing: What is drawn now, for bars.
    """

    pipeline: FmriToImagePipeline
    drawn_by: SeededDrawing
    record: TrainingRecord
    table: TrialTable
    subject: str
    references: LinearReferences | None
    repetitions: Literal["average", "single"]
    reference: FmriToImagePipeline | None = None
    refitted: FmriPreTrainedModel | None = None
    extractor: str | None = None
    weights: str | PathLike | None = None
    measured: Measured = "all"
    low_level_share: float = 0.0
    max_repetitions: int | None = None
    samples: int = 1
    extractors: Sequence[str] = ()
    library: FurtherPictures | None = None
    rows: dict[str, RowData] = field(default_factory=dict)
    rows_of_fewer: dict[int, RowData] = field(default_factory=dict)
    doing: str = ""
    _low_level: torch.Tensor | None = field(default=None, init=False)

    # ------------------------------------------------------------------------------------------------------- items

    @cached_property
    def held_out(self) -> HeldOut:
        """The test trials, and what is known of whether they were learned from."""
        return held_out_trials(self.pipeline, self.table, self.subject).measured(self.measured)

    @property
    def test(self) -> Trials:
        """The test trials."""
        return self.held_out.trials

    @cached_property
    def _processed(self) -> ProcessedTrials:
        return ProcessedTrials(self.test, self.pipeline.processor, self.repetitions, self.max_repetitions)

    @cached_property
    def stimulus_ids(self) -> list[str]:
        """N stimuli, one of each item."""
        return self._processed.stimulus_ids.tolist() * self.samples

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    @property
    def responses(self) -> int:
        """How many responses the items are pictures of."""
        return len(self) // self.samples

    def _for_each_sample(self, of_responses: torch.Tensor) -> torch.Tensor:
        """What belongs to responses, for every picture of each."""
        return torch.cat([of_responses] * self.samples)

    @property
    def sources(self) -> list[torch.Generator]:
        """A source of noise for each item."""
        return self.drawn_by.sources(self.responses, self.samples)

    def averaging(self, repetitions: int) -> "EvaluatedSubject":
        """The same items, of at most so many repetitions each, with no row drawn."""
        other = replace(self, max_repetitions=repetitions, rows={}, rows_of_fewer={})
        # What does not depend on how many are averaged is not made again.
        other.held_out, other.truth, other.gallery_embeds = self.held_out, self.truth, self.gallery_embeds
        return other

    @property
    def repetitions_of_items(self) -> np.ndarray:
        """(N,) of how many trials each item is."""
        if self.repetitions == "single":
            return np.ones(len(self), dtype=np.int64)
        stimuli, counts = np.unique(self.test.stimulus_ids, return_counts=True)
        return counts[np.searchsorted(stimuli, self.stimulus_ids)]

    def recorded_in(self, what: ExchangeWithin) -> list[str]:
        """N names of the session, run or block that each item was recorded in, of all where its trials are of several.

        Raises:
            FmriModelsError: The table does not know of blocks.
        """
        trials = self.test
        if what == "block" and not trials.blocks.any():
            raise FmriModelsError(
                f"{one_line(self.table.path)} does not know the blocks of {self.subject}; write them into the column "
                "block of EVENTS.csv, or exchange stimuli within runs or sessions."
            )
        numbers = {"session": [trials.sessions], "run": [trials.sessions, trials.runs]}.get(
            what, [trials.sessions, trials.runs, trials.blocks]
        )
        names = ["/".join(map(str, each)) for each in zip(*(values.tolist() for values in numbers), strict=True)]
        if self.repetitions == "single":
            return names * self.samples
        of_stimulus: dict[str, set[str]] = {}
        for stimulus, name in zip(trials.stimulus_ids.tolist(), names, strict=True):
            of_stimulus.setdefault(stimulus, set()).add(name)
        return [" ".join(sorted(of_stimulus[stimulus])) for stimulus in self.stimulus_ids]

    @cached_property
    def truth(self) -> torch.Tensor:
        """(N, C, H, W) what was shown, in [0, 1], of the size that the generator draws."""
        return self._for_each_sample(self.as_drawn(self.table.stimuli.images(self.stimulus_ids[: self.responses])))

    @cached_property
    def gallery_embeds(self) -> torch.Tensor | None:
        """(N, …) embeddings of what was shown, prepared as training targets are; None without retrieval."""
        generator, decoded = self.pipeline.image_generator, self.decoding.retrieval_embeds
        if not _are_embedded_by(generator, decoded):
            return None
        shown = self.table.stimuli.images(self.stimulus_ids[: self.responses])
        return self._for_each_sample(generator.embed_images(pictures_to_embed(shown, generator)))

    @cached_property
    def different_pictures(self) -> int:
        """How many pictures were shown, however many ids each has."""
        return len(set(self.pictures))

    @cached_property
    def pictures(self) -> list[str]:
        """N names of what was shown, equal for the very same picture, see [`picture_ids`]."""
        return picture_ids(self.stimulus_ids, self.truth).tolist()

    @cached_property
    def scenes(self) -> list[SceneFactors] | None:
        """Factors of built-in scenes; None for other pictures."""
        names = {each.name for each in fields(SceneFactors)}
        factors = self.table.stimuli.factors(self.stimulus_ids)
        known = zip(self.stimulus_ids, factors, strict=True)
        if not all(name.startswith("scene") and set(scene or {}) == names for name, scene in known):
            return None
        return [SceneFactors(**scene) for scene in factors if scene]

    @cached_property
    def training_trials(self) -> Trials:
        """The subject's trials that were learned from, as far as they have pictures."""
        record = self.record
        return self.table.trials(self.subject, labelled_parts(record.train_parts), record.split, record.fold)

    @cached_property
    def training_pictures(self) -> TrainingPictures:
        """The pictures that were learned from."""
        ids = list(dict.fromkeys(self.training_trials.stimulus_ids.tolist()))
        return TrainingPictures(self.table, ids, self.pipeline.image_generator.image_size)

    @cached_property
    def stimulus_vectors(self) -> StimulusVectors:
        """Test and training pictures as an audit compares them."""
        with progress.phase(f"Comparing test with training pictures of {self.subject}"):
            return StimulusVectors(self)

    @property
    def mean_training_picture(self) -> torch.Tensor:
        """(N, C, H, W), the mean of all training pictures for every item."""
        return self.training_pictures.mean().expand(len(self), -1, -1, -1)

    @cached_property
    def nearest_by(self) -> Nearness | None:
        """By what training pictures are near to an item; None where there is nothing."""
        generator, decoding = self.pipeline.image_generator, self.decoding
        if _are_embedded_by(generator, decoding.retrieval_embeds):
            return NearEmbeddings(generator, "image_embeds", decoded=decoding.retrieval_embeds)
        if decoding.latents is not None:
            return NearEmbeddings(generator, "latents", decoded=decoding.latents)
        embedder = generator if self.references is None else self.references.generator
        if embedder.image_embedding_space is not None:
            return NearEmbeddings(embedder, "image_embeds")
        if self.extractor is not None and min(generator.image_size[1:]) >= SMALLEST_NETWORK_PICTURE:
            return NearFeatures(self.extractor, self.weights)
        return None if generator.latent_space is None else NearEmbeddings(generator, "latents")

    @property
    def nearest_training_pictures(self) -> torch.Tensor:
        """(N, C, H, W), for each item the training picture nearest to what was decoded, or to what was drawn of it."""
        assert self.nearest_by is not None
        with progress.phase("Looking for the nearest training pictures"):
            drawn = self.rows["brain"].images if "brain" in self.rows else self.draw(self.decoding)
            assert drawn is not None
            return self.training_pictures.nearest(self.nearest_by, drawn)

    # ---------------------------------------------------------------------------------------------------- patterns

    @cached_property
    def features(self) -> torch.Tensor:
        """(N, width) processed voxels."""
        return self._for_each_sample(torch.from_numpy(self._processed[np.arange(len(self._processed))]))

    @cached_property
    def exchanged_features(self) -> torch.Tensor:
        """(N, width) processed voxels that belong to another picture than the item's."""
        return self.features[torch.from_numpy(exchange_stimuli(self.pictures, self.drawn_by.seed))]

    @cached_property
    def noise_free_features(self) -> torch.Tensor | None:
        """(N, width) processed voxels of the simulator's responses without noise; None where there are none."""
        trials = noise_free_trials(self.table, self.test)
        if trials is None:
            return None
        expected = ProcessedTrials(trials, self.pipeline.processor, self.repetitions)
        return self._for_each_sample(torch.from_numpy(expected[np.arange(len(expected))]))

    def features_without(self, silenced: np.ndarray) -> torch.Tensor:
        """(N, width) processed voxels of which some answer as they did on average in training.

        Args:
            silenced: (recorded voxels,) bool.
        """
        processor = self.pipeline.processor
        trials = SilencedTrials(self.test, processor.subject(self.subject), silenced, processor)
        processed = ProcessedTrials(trials, processor, self.repetitions, self.max_repetitions)
        return self._for_each_sample(torch.from_numpy(processed[np.arange(len(processed))]))

    @cached_property
    def features_of_references(self) -> torch.Tensor:
        """(N, width) processed voxels as [`LinearReferences`] reads them."""
        assert self.references is not None
        return self._for_each_sample(self.references.features(self.test, self.repetitions))

    # --------------------------------------------------------------------------------------------------- decodings

    @cached_property
    def decoding(self) -> FmriDecoding:
        """What the evaluated model decodes."""
        with progress.phase(f"Decoding {self.subject}"):
            return self.decode(self.pipeline.brain_model, self.features)

    @cached_property
    def true_decoding(self) -> FmriDecoding:
        """The true embeddings and latents, as far as references decode them."""
        assert self.references is not None
        generator, targets = self.references.generator, self.references.targets
        latents = generator.encode_images(self.truth) if "latents" in targets else None
        embeds = generator.embed_images(self.truth) if "image_embeds" in targets else None
        texts = self._true_text_embeds(generator) if "text_embeds" in targets else None
        return FmriDecoding(image_embeds=embeds, text_embeds=texts, latents=latents, retrieval_embeds=embeds)

    def _true_text_embeds(self, generator: ImageGenerator) -> torch.Tensor:
        """(N, …) embeddings of the captions of what was shown, made as training made them."""
        space = generator.text_embedding_space
        assert space is not None
        values = cached_targets(
            self.table, generator, "text_embeds", options=TargetOptions.of_recipe(self.record.recipe)
        )
        of_items = values[self.table.stimuli.positions(self.stimulus_ids)]
        return torch.from_numpy(np.asarray(of_items, dtype=np.float32)).reshape(-1, *space.shape)

    @staticmethod
    def only(decoding: FmriDecoding, *names: str) -> FmriDecoding:
        """These of what was decoded, and nothing else."""
        return FmriDecoding(**{name: getattr(decoding, name) for name in names})

    @cached_property
    def mean_condition(self) -> dict[str, torch.Tensor]:
        """Name ▶ mean of each condition, low-level pictures left out, that is decoded from the training trials."""
        trained = ProcessedTrials(self.training_trials, self.pipeline.processor, self.repetitions)
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, len(trained), _TRIALS_A_BATCH):
            features = torch.from_numpy(trained[np.arange(start, min(start + _TRIALS_A_BATCH, len(trained)))])
            sources = self.drawn_by.sources(len(features))
            decoding = self.decode(self.pipeline.brain_model, features, num_candidates=1, sources=sources)
            for name, values in decoding.conditions.given.items():
                if name != "latents":
                    sums[name] = sums.get(name, torch.zeros(())) + values.double().sum(dim=0)
        return {name: (total / len(trained)).float() for name, total in sums.items()}

    def decode(
        self,
        model: FmriPreTrainedModel,
        features: torch.Tensor,
        num_candidates: int | None = None,
        sources: list[torch.Generator] | None = None,
    ) -> FmriDecoding:
        """Decodes features (n, own width) of the subject, as often as the settings say where that is not said.

        Args:
            model: Decodes them.
            features: Those of the items, unless there are `sources` for others.
            num_candidates: How often each is decoded.
            sources: Of noise, one for each of the features.
        """
        padded, subject_ids = self.model_inputs(model, features)
        candidates = num_candidates or self.drawn_by.settings.num_candidates
        # Guides are more than memory may hold, and measured one by one.
        without = {"guides": ()} if model.config.guide_spaces else {}
        decoding = model.decode(padded, subject_ids, candidates, sources or self.sources, **without)
        # What depends on the whole test set is known where all of its items are decoded, and nowhere else.
        if model.is_transductive and sources is None:
            return model.restandardised(decoding, subject_ids)
        return decoding

    def model_inputs(self, model: FmriPreTrainedModel, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (n, own width) of the subject as a model takes them: (n, widest subject), and (n,) its index."""
        width = max(model.config.num_voxels)
        padded = torch.nn.functional.pad(features, (0, width - features.shape[1]))
        # Of a pipeline with subjects of several tables, a reference has those of this table.
        known = model.config.subject_names
        names = known if self.subject in known else self.pipeline.processor.subject_names
        subject = names.index(self.subject)
        return padded, torch.full((len(features),), subject)

    # ---------------------------------------------------------------------------------------------------- pictures

    def row(self, decoding: FmriDecoding, by: FmriToImagePipeline | None = None) -> RowData:
        """Pictures, with the protocol's share of the low-level one, and retrieval embeddings of what was decoded.

        Args:
            decoding: Of the N items.
            by: As of [`draw`].
        """
        images = self.draw(decoding, by)
        if self.low_level_share and decoding.latents is not None:
            low_level = self.draw_low_level(decoding, by)
            images = (1 - self.low_level_share) * images + self.low_level_share * low_level
        return RowData(images=images, retrieval_embeds=decoding.retrieval_embeds)

    def draw_low_level(self, decoding: FmriDecoding, by: FmriToImagePipeline | None = None) -> torch.Tensor:
        """Pictures (N, C, H, W) of the decoded latents alone, those of the evaluated model once."""
        if decoding is not self.decoding:
            return self._low_level_of(decoding, by)
        if self._low_level is None:
            self._low_level = self._low_level_of(decoding, by)
        return self._low_level

    def _low_level_of(self, decoding: FmriDecoding, by: FmriToImagePipeline | None) -> torch.Tensor:
        return self.draw(self.only(decoding, "latents"), by, strength=0.0, num_candidates=1)

    def row_of_reference(self, model: FmriPreTrainedModel) -> RowData:
        """Pictures and retrieval embeddings of what a linear reference decodes of the items."""
        assert self.references is not None
        return self.row(self.decode(model, self.features_of_references), self.references.drawn_by)

    def draw(self, decoding: FmriDecoding, by: FmriToImagePipeline | None = None, **changes: Any) -> torch.Tensor:
        """Pictures (N, C, H, W) of what was decoded.

        Args:
            decoding: Of N items.
            by: Draws them; None for the evaluated pipeline.
            **changes: Replace single settings.
        """
        by = by or self.pipeline
        settings, sources = self.drawn_by.settings.changed(changes), self.sources
        request = DrawingRequest(settings, generator=sources, output_type="pt")
        # The evaluated pipeline's bars have their name already.
        with ExitStack() as stack:
            if by is not self.pipeline:
                stack.enter_context(progress.named(by, self.doing, by.image_generator))
            stack.enter_context(self.drawn_by.computing(self.pipeline.device))
            images = by.images_of(decoding, request, len(self)).images
        assert isinstance(images, torch.Tensor)
        return images

    def draw_floor(self) -> torch.Tensor:
        """Pictures (N, C, H, W) of the generator that knows nothing of an item, see [`floor_of`]."""
        if floor_of(self.pipeline, self.record) == "nothing":
            return self.draw_unconditionally()
        means: dict[str, Any] = {
            name: mean.expand(len(self), *mean.shape) for name, mean in self.mean_condition.items()
        }
        return self._draw_alike(Conditions(**means, num_images=len(self)))

    def draw_unconditionally(self) -> torch.Tensor:
        """Pictures (N, C, H, W) of the generator that was told nothing."""
        return self._draw_alike(Conditions(num_images=len(self)))

    def _draw_alike(self, conditions: Conditions) -> torch.Tensor:
        """Pictures (N, C, H, W) of conditions that are the same for all items."""
        settings, sources = self.drawn_by.settings, self.sources
        # The generator's own bars are turned off by the pipeline.
        with (
            progress.bar(name=self.doing, total=len(self), unit="picture") as done,
            self.drawn_by.computing(self.pipeline.device),
        ):
            images = self.pipeline.image_generator.images_of(conditions, settings, sources, "pt").images
            done.update(len(self))
        return images

    def draw_reference(self) -> torch.Tensor:
        """Pictures (N, C, H, W) of the same trials as the other pipeline reads and draws them."""
        assert self.reference is not None
        other = replace(self, pipeline=self.reference, rows={}, rows_of_fewer={})
        # Those that were held out from the evaluated one.
        other.held_out = self.held_out
        return other.draw(other.decode(other.pipeline.brain_model, other.features))

    def as_drawn(self, pictures: np.ndarray) -> torch.Tensor:
        """Given pictures (N, H, W, C) as (N, C, H, W) in [0, 1], of the size that the generator draws."""
        return prepare_pictures(pictures, self.pipeline.image_generator.image_size)


def _are_embedded_by(generator: ImageGenerator, decoded: torch.Tensor | None) -> bool:
    """Whether decoded embeddings can be compared with those that a generator makes of pictures."""
    space = generator.image_embedding_space
    return decoded is not None and space is not None and decoded[0].numel() == space.size
