"""MinD-Vis: masked brain modelling and a doubly conditioned latent diffusion model (Chen et al., 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...records import Method, Paper, PretrainedRecord

_PAPER = Paper(
    "Seeing Beyond the Brain: Conditional Diffusion Model with Sparse Masked Modeling for Vision Decoding",
    ("Zijiao Chen", "Jiaxin Qing", "Tiange Xiang", "Wan Lin Yue", "Juan Helen Zhou"),
    2023,
    "https://arxiv.org/abs/2211.06956",
    "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
)

METHOD = Method.of_folder(
    __name__,
    "MindVis",
    title="MinD-Vis: masked brain modelling, doubly conditioned latent diffusion (Chen et al., 2023)",
    converter=f"{__name__}.published_mindvis:convert",
    # Nothing ranks candidates of a method that decodes no embedding, and conditions are never dropped in training.
    demo=(
        "stages.0.unpaired=[{parts: [unlabelled]}]",
        # Simulated pictures have captions, which say where things are.
        "targets=[image_embeds, text_embeds, latents]",
        "drawing.guidance_scale=1",
        "drawing.num_candidates=1",
    ),
    demo_unlabelled=1.0,
    quick=("stages.0.training.epochs=1", "stages.1.training.epochs=3", "stages.2.training.epochs=1"),
    paper=_PAPER,
    license="mit",
    origin="https://github.com/zjc062/mind-vis",
    pretrained=(
        PretrainedRecord(
            "mindvis-god-sbj3",
            "As published for subject 3 of GOD, with its diffusion model; that of CSI1 of BOLD5000 lies beside it",
            method="mindvis",
            generator="double_conditioned",
            paper=_PAPER,
            origin="https://figshare.com/s/94cd778e6afafb00946e",
            size=2_440_000_000,
            state="converted",
            command="fmri-models convert mindvis finetuned.pth --out converted/mindvis",
        ),
    ),
)
# Its parts are models that can be loaded by themselves.
_PARTS = {
    "MindVisEncoder": "encoder_mindvis",
    "MindVisEncoderOutput": "encoder_mindvis",
    "MindVisForPreTraining": "pretraining_mindvis",
    "MindVisPreTrainingOutput": "pretraining_mindvis",
}

if TYPE_CHECKING:
    from .configuration_mindvis import MindVisConfig
    from .encoder_mindvis import MindVisEncoder, MindVisEncoderOutput
    from .modeling_mindvis import MindVisModel, MindVisOutput
    from .objective_mindvis import MindVisObjective
    from .pipeline_mindvis import MindVisPipeline
    from .pretraining_mindvis import MindVisForPreTraining, MindVisPreTrainingOutput

__all__ = [
    "METHOD",
    "MindVisConfig",
    "MindVisEncoder",
    "MindVisEncoderOutput",
    "MindVisForPreTraining",
    "MindVisModel",
    "MindVisObjective",
    "MindVisOutput",
    "MindVisPipeline",
    "MindVisPreTrainingOutput",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return getattr(import_module(f"{__name__}.{_PARTS[name]}"), name)
    return METHOD.find(name)
