"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions, for `evaluate.load`."""

from fmri_models.evaluation import caption_scores, loadable


class CaptionScores(loadable.OfTexts):
    """BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions."""

    function = staticmethod(caption_scores)
