"""What a training ran on, for its record: nothing of it tells whose machine it was."""

import platform

import torch

from ..training_record import Hardware
from .options import Precision
from .precision import computed_precision
from .processes import processes, uses_cpu_processes
from .recipe import Recipe

_DTYPES: dict[Precision, str] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def hardware(recipe: Recipe) -> Hardware:
    """Device, its name, numbers of processes and of a process' threads, and the precision of stages by gradient.

    Args:
        recipe: What was trained; a closed form computes on the CPU.
    """
    device = processes().device if recipe.trains_by_gradient else torch.device("cpu")
    on_cpu = uses_cpu_processes() or not torch.cuda.is_available()
    trainings = [stage.training for stage in recipe.stages if stage.training is not None]
    precisions = dict.fromkeys(_DTYPES[computed_precision(training, on_cpu)] for training in trainings)
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "processes": processes().num_processes,
        "threads": torch.get_num_threads(),
        "precision": ", ".join(precisions) or None,
    }
