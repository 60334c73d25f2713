"""MindEye: contrastive learning, a diffusion prior and a low-level branch (Scotti et al., 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...records import Method, Paper, PretrainedRecord

_PAPER = Paper(
    "Reconstructing the Mind's Eye: fMRI-to-Image with Contrastive Learning and Diffusion Priors",
    (
        "Paul S. Scotti", "Atmadeep Banerjee", "Jimmie Goode", "Stepan Shabalin", "Alex Nguyen", "Ethan Cohen",
        "Aidan J. Dempster", "Nathalie Verlinde", "Elad Yundler", "David Weisberg", "Kenneth A. Norman",
        "Tanishq Mathew Abraham",
    ),
    2023,
    "https://arxiv.org/abs/2305.18274",
    "Advances in Neural Information Processing Systems 36 (NeurIPS)",
)  # fmt: skip


def _published(name: str, title: str, megabytes: int, command: str, generator: str | None) -> PretrainedRecord:
    """Files of the authors for one subject of NSD; their page states no licence, and NSD's terms hold for the data."""
    return PretrainedRecord(
        name,
        title,
        method="mindeye",
        generator=generator,
        paper=_PAPER,
        origin="https://huggingface.co/datasets/pscotti/naturalscenesdataset/tree/main/mindeye_models",
        size=megabytes * 10**6,
        state="converted",
        command=command,
    )


METHOD = Method.of_folder(
    __name__,
    "MindEye",
    title="MindEye: contrastive backbone, diffusion prior, low-level branch (Scotti et al., 2023)",
    converter=f"{__name__}.published_mindeye:convert",
    quick=("stages.0.training.epochs=20", "stages.1.training.epochs=6", "stages.2.training.epochs=3"),
    paper=_PAPER,
    license="mit",
    origin="https://github.com/MedARC-AI/fMRI-reconstruction-NSD",
    pretrained=(
        PretrainedRecord(
            "mindeye-scenes",
            "A small MindEye on a simulated brain that saw built-in scenes, for `load_example`",
            method="mindeye",
            generator="embedded",
            license="apache-2.0",
            folder="examples/mindeye-scenes",
        ),
        _published(
            "mindeye-nsd-subj01",
            "As published for subject 1 of NSD, with the low-level branch; files for subjects 2, 5 and 7 lie beside it",
            14470,
            "fmri-models convert mindeye last.pth --low-level epoch120.pth --out converted/mindeye",
            "versatile_diffusion",
        ),
        _published(
            "mindeye-nsd-subj01-retrieval",
            "As published for subject 1 of NSD, with one token: retrieves and draws nothing",
            2930,
            "fmri-models convert mindeye last.pth use_prior=false --out converted/mindeye_retrieval",
            None,
        ),
    ),
)
# Its modules are models that can be loaded by themselves.
_MODULES = {
    "MindEyeLowLevelModel": "low_level_mindeye",
    "MindEyeLowLevelOutput": "low_level_mindeye",
    "MindEyePrior": "prior_mindeye",
}

if TYPE_CHECKING:
    from .configuration_mindeye import MindEyeConfig
    from .low_level_mindeye import MindEyeLowLevelModel, MindEyeLowLevelOutput
    from .modeling_mindeye import MindEyeModel, MindEyeOutput
    from .objective_mindeye import MindEyeObjective
    from .pipeline_mindeye import MindEyePipeline
    from .prior_mindeye import MindEyePrior

__all__ = [
    "METHOD",
    "MindEyeConfig",
    "MindEyeLowLevelModel",
    "MindEyeLowLevelOutput",
    "MindEyeModel",
    "MindEyeObjective",
    "MindEyeOutput",
    "MindEyePipeline",
    "MindEyePrior",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return METHOD.find(name)
