"""What the rows of one subject on one fold are drawn from, and how: alike, and from the same noise."""

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
from ..drawing_request import DrawingRequest
from ..generation.image_generator import ImageGenerator
from ..modeling_fmri import FmriPreTrainedModel
from ..modeling_outputs import FmriDecoding
from ..pipeline_fmri import FmriToImagePipeline
from ..scenes import SceneFactors
from ..training_record import TrainingRecord
from .controls import LinearReferences, exchange_stimuli
from .held_out import HeldOut, held_out_trials
from .learning import floor_of
from .named_metrics import SMALLEST_NETWORK_PICTURE
from .noise_free import noise_free_trials
from .row_data import RowData
from .scored_items import picture_ids
from .seeded_drawing import SeededDrawing
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
        rows: Name ▶ those that were drawn so far.
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
    rows: dict[str, RowData] = field(default_factory=dict)
    doing: str = ""

    # ------------------------------------------------------------------------------------------------------- items

    @cached_property
    def held_out(self) -> HeldOut:
        """The test trials, and what is known of whether they were learned from."""
        return held_out_trials(self.pipeline, self.table, self.subject)

    @property
    def test(self) -> Trials:
        """The test trials."""
        return self.held_out.trials

    @cached_property
    def _processed(self) -> ProcessedTrials:
        return ProcessedTrials(self.test, self.pipeline.processor, self.repetitions)

    @cached_property
    def stimulus_ids(self) -> list[str]:
        """N stimuli, one of each item."""
        return self._processed.stimulus_ids.tolist()

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    @cached_property
    def truth(self) -> torch.Tensor:
        """(N, C, H, W) what was shown, in [0, 1], of the size that the generator draws."""
        return self.as_drawn(self.table.stimuli.images(self.stimulus_ids))

    @cached_property
    def gallery_embeds(self) -> torch.Tensor | None:
        """(N, …) embeddings of what was shown, prepared as training targets are; None without retrieval."""
        generator, decoded = self.pipeline.image_generator, self.decoding.retrieval_embeds
        if not _are_embedded_by(generator, decoded):
            return None
        return generator.embed_images(pictures_to_embed(self.table.stimuli.images(self.stimulus_ids), generator))

    @cached_property
    def different_pictures(self) -> int:
        """How many pictures were shown, however many ids each has."""
        return len(set(self._pictures))

    @cached_property
    def _pictures(self) -> list[str]:
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
        return torch.from_numpy(self._processed[np.arange(len(self._processed))])

    @cached_property
    def exchanged_features(self) -> torch.Tensor:
        """(N, width) processed voxels that belong to another picture than the item's."""
        return self.features[torch.from_numpy(exchange_stimuli(self._pictures, self.drawn_by.seed))]

    @cached_property
    def noise_free_features(self) -> torch.Tensor | None:
        """(N, width) processed voxels of the simulator's responses without noise; None where there are none."""
        trials = noise_free_trials(self.table, self.test)
        if trials is None:
            return None
        expected = ProcessedTrials(trials, self.pipeline.processor, self.repetitions)
        return torch.from_numpy(expected[np.arange(len(expected))])

    @cached_property
    def features_of_references(self) -> torch.Tensor:
        """(N, width) processed voxels as [`LinearReferences`] reads them."""
        assert self.references is not None
        return self.references.features(self.test, self.repetitions)

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
        return FmriDecoding(image_embeds=embeds, latents=latents, retrieval_embeds=embeds)

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
            decoding = self.decode(self.pipeline.brain_model, features, num_candidates=1)
            for name, values in decoding.conditions.given.items():
                if name != "latents":
                    sums[name] = sums.get(name, torch.zeros(())) + values.double().sum(dim=0)
        return {name: (total / len(trained)).float() for name, total in sums.items()}

    def decode(
        self, model: FmriPreTrainedModel, features: torch.Tensor, num_candidates: int | None = None
    ) -> FmriDecoding:
        """Decodes features (n, own width) of the subject, as often as the settings say where that is not said."""
        padded, subject_ids = self.model_inputs(model, features)
        sources = self.drawn_by.sources(len(features))
        return model.decode(padded, subject_ids, num_candidates or self.drawn_by.settings.num_candidates, sources)

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
        """Pictures and retrieval embeddings of what was decoded; `by` as of [`draw`]."""
        return RowData(images=self.draw(decoding, by), retrieval_embeds=decoding.retrieval_embeds)

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
        settings, sources = self.drawn_by.settings.changed(changes), self.drawn_by.sources(len(self))
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
        means = {name: mean.expand(len(self), *mean.shape) for name, mean in self.mean_condition.items()}
        return self._draw_alike(Conditions(**means, num_images=len(self)))

    def draw_unconditionally(self) -> torch.Tensor:
        """Pictures (N, C, H, W) of the generator that was told nothing."""
        return self._draw_alike(Conditions(num_images=len(self)))

    def _draw_alike(self, conditions: Conditions) -> torch.Tensor:
        """Pictures (N, C, H, W) of conditions that are the same for all items."""
        settings, sources = self.drawn_by.settings, self.drawn_by.sources(len(self))
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
        other = replace(self, pipeline=self.reference, rows={})
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
