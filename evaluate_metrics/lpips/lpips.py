"""LPIPS of pictures and reconstructions, for `evaluate.load`."""

from fmri_models.evaluation import LpipsAlexNet, loadable, lpips


class Lpips(loadable.OfPictures):
    """LPIPS; `weights` is the folder with the network's files."""

    function = staticmethod(lpips)

    def scores(self, predictions, references, *, weights, **options):
        """Reads the network and the pictures."""
        truth, recon = loadable.read_pictures(references), loadable.read_pictures(predictions)
        return lpips(truth, recon, LpipsAlexNet.from_folder(weights), **options)
