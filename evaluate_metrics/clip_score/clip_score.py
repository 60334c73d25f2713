"""CLIPScore of embeddings of captions (predictions) and pictures (references), for `evaluate.load`."""

from fmri_models.evaluation import clip_score, loadable


class ClipScore(loadable.OfVectors):
    """CLIPScore; predictions are CLIP's embeddings of captions, references those of the pictures that were shown."""

    function = staticmethod(clip_score)
