"""Where half precision takes less time, and where it takes more."""

import torch
from transformers.utils import logging

from ..errors import FmriModelsError
from .options import Precision, TrainingOptions

logger = logging.get_logger(__name__)


def has_bfloat16_instructions() -> bool:
    """Whether this processor computes in bfloat16; others emulate it, which takes longer than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def computed_precision(options: TrainingOptions, on_cpu: bool) -> Precision:
    """The precision of a stage on this machine: a processor that would have to emulate bf16 computes in float32.

    Weights that are kept in bfloat16 are the exception, since somebody who asks for them is short of memory.

    Args:
        options: Of the stage.
        on_cpu: Whether it is trained on a CPU.
    """
    emulates = on_cpu and options.mixed_precision == "bf16" and not has_bfloat16_instructions()
    if not emulates or options.parameter_dtype == "bfloat16":
        return options.mixed_precision
    logger.info("This processor has no instructions for bfloat16; training computes in float32, which takes less time.")
    return "no"


def check_precision(options: TrainingOptions) -> None:
    """Refuses a precision that this machine lacks.

    Raises:
        FmriModelsError: It is half precision, and there is no GPU.
    """
    if options.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise FmriModelsError("training.mixed_precision is 'fp16', which needs a GPU; choose 'bf16' or 'no'.")
