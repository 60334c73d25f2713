"""Scores, controls and reports. Names are loaded with their first use, so that importing this costs nothing."""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "pixcorr": "metrics",
    "ssim": "metrics",
    "mse": "metrics",
    "two_way_identification": "metrics",
    "pairwise_pixcorr": "metrics",
    "identification_top1": "metrics",
    "correlation_distance": "metrics",
    "n_way_accuracy": "classification",
    "ssim_matrix": "metrics",
    "frechet_distance": "distributions",
    "identification_accuracy": "identification",
    "n_way_identification": "identification",
    "pairwise_identification": "identification",
    "category_identification": "identification",
    "seen_and_imagined_identification": "identification",
    "profile_correlation": "identification",
    "pattern_correlation": "identification",
    "LpipsAlexNet": "perceptual",
    "lpips": "perceptual",
    "caption_scores": "captions",
    "clip_score": "captions",
    "retrieval_accuracy": "retrieval",
    "retrieve": ".retrieval",
    "EXTRACTORS": "extractors",
    "EfficientNetLite0": "extractors",
    "FeatureExtractor": "extractors",
    "NetworkExtractor": "extractors",
    "load_extractor": "extractors",
    "Protocol": "protocols",
    "get_protocol": "protocols",
    "RowData": "row_data",
    "Scores": "scores",
    "score_rows": "scoring",
    "Report": "report",
    "Verdict": "overall_verdict",
    "verdict": "overall_verdict",
    "write_report": "report_folder",
    "evaluate_images": "images",
    "record_look": "looks",
    "read_looks": "looks",
}

if TYPE_CHECKING:
    from ..retrieval import retrieve
    from .captions import caption_scores, clip_score
    from .classification import n_way_accuracy
    from .distributions import frechet_distance
    from .extractors import EXTRACTORS, EfficientNetLite0, FeatureExtractor, NetworkExtractor, load_extractor
    from .identification import (
        category_identification,
        identification_accuracy,
        n_way_identification,
        pairwise_identification,
        pattern_correlation,
        profile_correlation,
        seen_and_imagined_identification,
    )
    from .images import evaluate_images
    from .looks import read_looks, record_look
    from .metrics import (
        correlation_distance,
        identification_top1,
        mse,
        pairwise_pixcorr,
        pixcorr,
        ssim,
        ssim_matrix,
        two_way_identification,
    )
    from .overall_verdict import Verdict, verdict
    from .perceptual import LpipsAlexNet, lpips
    from .protocols import Protocol, get_protocol
    from .report import Report
    from .report_folder import write_report
    from .retrieval import retrieval_accuracy
    from .row_data import RowData
    from .scores import Scores
    from .scoring import score_rows

__all__ = [
    "EXTRACTORS",
    "EfficientNetLite0",
    "FeatureExtractor",
    "LpipsAlexNet",
    "NetworkExtractor",
    "Protocol",
    "Report",
    "RowData",
    "Scores",
    "Verdict",
    "caption_scores",
    "category_identification",
    "clip_score",
    "correlation_distance",
    "evaluate_images",
    "frechet_distance",
    "get_protocol",
    "identification_accuracy",
    "identification_top1",
    "load_extractor",
    "lpips",
    "mse",
    "n_way_accuracy",
    "n_way_identification",
    "pairwise_identification",
    "pairwise_pixcorr",
    "pattern_correlation",
    "pixcorr",
    "profile_correlation",
    "read_looks",
    "record_look",
    "retrieval_accuracy",
    "retrieve",
    "score_rows",
    "seen_and_imagined_identification",
    "ssim",
    "ssim_matrix",
    "two_way_identification",
    "verdict",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
