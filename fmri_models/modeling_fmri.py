"""The base class of all brain models."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .configuration_fmri import FmriConfig
from .errors import FmriModelsError
from .modeling_outputs import FmriDecoding
from .saving import replaceable_folder

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
        with replaceable_folder(save_directory, marker="config.json") as partial:
            super().save_pretrained(partial, max_shard_size=max_shard_size, **kwargs)
