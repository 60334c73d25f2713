"""The base class of all brain models."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .configuration_fmri import FmriConfig
from .errors import FmriModelsError
from .modeling_outputs import FmriDecoding
from .retrieval import Embeddings, Query, Retrieved, retrieve
from .saving import merged_folder, weights_no_longer_needed

SubjectIds = torch.Tensor | Sequence[int] | Sequence[str] | str | None


class FmriPreTrainedModel(PreTrainedModel):
    """A network from voxels to the space that an image generator understands.

    A subclass implements `forward` (training) and [`~FmriPreTrainedModel.decode`] (inference).
    """

    config: FmriConfig
    config_class = FmriConfig
    base_model_prefix = "brain_model"
    main_input_name = "fmri"

    @classmethod
    def from_original(cls, checkpoint: str | os.PathLike | dict[str, torch.Tensor], **config_overrides: Any) -> Any:
        """Reads the checkpoint layout of the original publication.

        Raises:
            FmriModelsError: The method has no published checkpoint layout.
        """
        raise FmriModelsError(f"{cls.__name__} has no published checkpoint layout; use from_pretrained.")

    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> FmriDecoding:
        """Decodes processed voxels.

        Args:
            fmri: (B, V) float, as the processor gives it: zero-padded to the widest subject.
            subject_ids: (B,) indices into `config.subject_names` or the names themselves; None if there is one subject.
            num_candidates: How many samples to draw where the method samples.
            generator: Source of the noise of these samples.
        """
        raise NotImplementedError(f"{type(self).__name__} implements no decode().")

    def retrieval_embeds(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> torch.Tensor:
        """Decodes what is compared with the embeddings of pictures; nothing is sampled where a method need not.

        Args:
            fmri: (B, V) float, as the processor gives it.
            subject_ids: (B,) indices or names; None if there is one subject.

        Returns:
            (B, …) float.

        Raises:
            FmriModelsError: The method has none.
        """
        embeds = self.decode(fmri, subject_ids).retrieval_embeds
        if embeds is None:
            raise FmriModelsError(
                f"This {type(self).__name__} decodes no embeddings that can be compared with pictures, so it can't "
                "retrieve; train it with image_embeds among its targets."
            )
        return embeds

    @torch.no_grad()
    def retrieve(
        self,
        fmri: torch.Tensor,
        gallery: Embeddings,
        subject_ids: SubjectIds = None,
        top_k: int = 5,
        query: Query = "brain",
    ) -> Retrieved:
        """Finds pictures by what was decoded from brain responses, or responses by pictures: exactly, in bounded
        memory.

        The direction is named by its query. `"brain"`: each response looks for its picture in the gallery; the papers
        print how often it is found in the column "Brain", and MindEye's code calls it "bwd". `"image"`: each picture of
        the gallery looks for its response; the column "Image", "fwd" in the code.

        Args:
            fmri: (B, V) float, as the processor gives it.
            gallery: (M, …) embeddings of pictures in the model's space: a tensor or array, which may be memory-mapped
                and of half precision. Pictures that occur several times take several places, the first one first.
            subject_ids: (B,) indices or names; None if there is one subject.
            top_k: How many of the most similar to return.
            query: Which side asks.

        Returns:
            [`Retrieved`]: cosine similarities and indices, (B, top_k) into the gallery for `"brain"`, (M, top_k) into
            `fmri` for `"image"`.

        Raises:
            FmriModelsError: The method has no embeddings for retrieval, the gallery is of another size, or `top_k` is
                out of range.
        """
        if query not in ("brain", "image"):
            raise FmriModelsError(f"query is {query!r}; expected 'brain' or 'image'.")
        embeds = self.retrieval_embeds(fmri, subject_ids).flatten(1)
        space = self.config.space("image_embedding_space")
        found = gallery.reshape(len(gallery), -1).shape[1] if len(gallery) else 0
        if space is not None and found != space.size:
            raise FmriModelsError(
                f"The gallery has {len(gallery)} embeddings of {found} values; this model's have {space.size} "
                f"({space.encoder}, {space.layer}); embed the pictures with the model's image generator."
            )
        return retrieve(embeds, gallery, top_k) if query == "brain" else retrieve(gallery, embeds, top_k)

    def subject_indices(self, subject_ids: SubjectIds, batch_size: int, device: torch.device) -> torch.Tensor:
        """Subjects in any form as (B,) long indices into `config.subject_names`.

        Raises:
            FmriModelsError: A subject is unknown, the number differs from the batch size, or none is given while the
                model has several.
        """
        names = self.config.subject_names
        if subject_ids is None:
            if len(names) != 1:
                raise FmriModelsError(
                    f"This model has the subjects {', '.join(names)}; say with subject_ids whose voxels these are."
                )
            return torch.zeros(batch_size, dtype=torch.long, device=device)
        if isinstance(subject_ids, str):
            subject_ids = [subject_ids] * batch_size
        if not isinstance(subject_ids, torch.Tensor):
            indices = [self.config.subject_index(s) if isinstance(s, str) else int(s) for s in subject_ids]
            subject_ids = torch.tensor(indices)
        if subject_ids.shape != (batch_size,):
            raise FmriModelsError(
                f"subject_ids has shape {tuple(subject_ids.shape)} for a batch of {batch_size}; give one id a row."
            )
        if len(subject_ids) and (subject_ids.min() < 0 or subject_ids.max() >= len(names)):
            raise FmriModelsError(
                f"subject_ids reaches from {int(subject_ids.min())} to {int(subject_ids.max())}; this model has "
                f"{len(names)} subjects, with ids from 0 to {len(names) - 1}."
            )
        return subject_ids.to(device=device, dtype=torch.long)

    def check_fmri(self, fmri: torch.Tensor) -> None:
        """Refuses voxels that did not come through this model's processor.

        Raises:
            FmriModelsError: `fmri` is not (B, widest subject).
        """
        width = max(self.config.num_voxels)
        if fmri.ndim != 2 or fmri.shape[1] != width:
            raise FmriModelsError(
                f"{type(self).__name__} takes processed voxels of shape (batch, {width}); got {tuple(fmri.shape)}; "
                "pass betas through the model's FmriProcessor first."
            )

    def save_pretrained(
        self, save_directory: str | os.PathLike, max_shard_size: int | str = "2GB", **kwargs: Any
    ) -> None:
        """Saves configuration and weights: a model that was in the folder is replaced only by a complete one.

        Raises:
            FmriModelsError: The folder holds something else, or the disk is full.
        """
        with merged_folder(save_directory, weights_no_longer_needed) as partial:
            super().save_pretrained(partial, max_shard_size=max_shard_size, **kwargs)
