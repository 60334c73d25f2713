"""MindBridge: one model for many brains (Wang et al., 2024)."""

from typing import TYPE_CHECKING, Any

from ...records import Method, Paper, PretrainedRecord

_PAPER = Paper(
    "MindBridge: A Cross-Subject Brain Decoding Framework",
    ("Shizun Wang", "Songhua Liu", "Zhenxiong Tan", "Xinchao Wang"),
    2024,
    "https://arxiv.org/abs/2404.07850",
    "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
)

METHOD = Method.of_folder(
    __name__,
    "MindBridge",
    title="MindBridge: one translator for many brains, cyclic reconstruction, new subjects (Wang et al., 2024)",
    converter=f"{__name__}.published_mindbridge:convert",
    demo_subjects=3,
    demo_new_subject="mindbridge_new_subject",
    quick=("stages.0.training.epochs=15",),
    paper=_PAPER,
    origin="https://github.com/littlepure2333/MindBridge",
    pretrained=(
        PretrainedRecord(
            "mindbridge-nsd-subj1257",
            "As published for subjects 1, 2, 5, 7 of NSD together; files for single and adapted ones lie beside it",
            method="mindbridge",
            generator="versatile_diffusion",
            paper=_PAPER,
            origin="https://huggingface.co/littlepure2333/MindBridge",
            size=2_770_000_000,
            state="converted",
            may_be_shared=False,
            command="fmri-models convert mindbridge last.pth --out converted/mindbridge",
        ),
    ),
)

if TYPE_CHECKING:
    from .configuration_mindbridge import MindBridgeConfig
    from .modeling_mindbridge import MindBridgeModel, MindBridgeOutput
    from .objective_mindbridge import MindBridgeObjective
    from .pipeline_mindbridge import MindBridgePipeline

__all__ = [
    "METHOD",
    "MindBridgeConfig",
    "MindBridgeModel",
    "MindBridgeObjective",
    "MindBridgeOutput",
    "MindBridgePipeline",
]


def __getattr__(name: str) -> Any:
    return METHOD.find(name)
