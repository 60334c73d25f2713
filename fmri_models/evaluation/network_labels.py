"""What people call the networks that measure; their names are those of options, files and metrics."""

import re

_LABELS = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "efficientnet_lite0_classes": "EfficientNet-Lite0 classes",
    "open_nsfw_resnet50": "Open NSFW ResNet-50",
    "alexnet": "AlexNet",
    "alexnet2": "AlexNet(2)",
    "alexnet5": "AlexNet(5)",
    "lpips_alexnet": "LPIPS AlexNet",
    "inception_v3": "Inception-v3",
    "clip_vit_l14": "CLIP ViT-L/14",
    "efficientnet_b1": "EfficientNet-B1",
    "efficientnet_b1_v1": "EfficientNet-B1 v1",
    "swav_resnet50": "SwAV ResNet-50",
    "vit_h14": "ViT-H/14",
    "inception_fid64": "FID's Inception, 64",
    "inception_fid2048": "FID's Inception, 2048",
    "scene_factors": "the judge of scenes",
}
# Networks that see pictures of another size than their published weights were trained for have it in their names.
_OF_SIZE = re.compile(r"(?P<network>.+)_(?P<side>224)")


def network_label(name: str) -> str:
    """What tables call an extractor; its own name where nobody knows a better one.

    Args:
        name: As in [`EXTRACTORS`], or somebody's own.
    """
    of_size = _OF_SIZE.fullmatch(name)
    if name not in _LABELS and of_size and of_size["network"] in _LABELS:
        return f"{_LABELS[of_size['network']]} at {of_size['side']}"
    return _LABELS.get(name, name)
