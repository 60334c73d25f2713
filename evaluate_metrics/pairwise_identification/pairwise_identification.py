"""Two-way identification of decoded features as bdpy has it, for `evaluate.load`."""

from fmri_models.evaluation import loadable, pairwise_identification


class PairwiseIdentification(loadable.OfVectors):
    """Two-way identification of decoded features as bdpy has it."""

    function = staticmethod(pairwise_identification)
