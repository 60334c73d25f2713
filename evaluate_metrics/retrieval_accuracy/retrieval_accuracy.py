"""Retrieval among embeddings of brain responses (predictions) and pictures (references), for `evaluate.load`."""

from fmri_models.evaluation import loadable, retrieval_accuracy


class RetrievalAccuracy(loadable.OfVectors):
    """Retrieval; predictions are the embeddings decoded from brain responses, references those of pictures."""

    function = staticmethod(retrieval_accuracy)

    def scores(self, predictions, references, **options):
        """Calls it with the brain's side first."""
        return retrieval_accuracy(loadable.as_vectors(predictions), loadable.as_vectors(references), **options)
