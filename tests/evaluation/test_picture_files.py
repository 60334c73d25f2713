import numpy as np

from fmri_models.evaluation import Scores
from fmri_models.evaluation.picture_files import item_names


def test_names_of_pictures_are_unique_and_safe():
    ids = np.array(["a/b", "a/b", "../x"])
    names = item_names(Scores({}, np.array(["s"] * 3), ids, np.zeros(3, int)))
    assert names == ["a_b.png", "a_b-2.png", "_x.png"]
    ids = np.array(["x", "x-2", "x", "a b", "a_b", "x" * 128, "x" * 128, ".", "ä"])
    names = item_names(Scores({}, np.array(["s"] * 9), ids, np.zeros(9, int)))
    assert names[:5] == ["x.png", "x-2.png", "x-3.png", "a_b-2.png", "a_b.png"]
    assert names[5:7] == ["x" * 128 + ".png", "x" * 128 + "-2.png"]
    assert len(set(names)) == 9
