from PIL import Image

from fmri_models.evaluation.picture_grid import draw_grid, grid_items


def test_grid_is_a_seeded_choice_that_ignores_scores(scores, material):
    items = grid_items(scores, 5, seed=3)
    assert items == grid_items(scores, 5, seed=3) != grid_items(scores, 5, seed=4)
    assert all(scores.subjects[item] == "subj01" for item in items)
    grid = draw_grid(material["truth"], {"brain": material["rows"]["brain"].images}, scores, columns=5)
    assert isinstance(grid, Image.Image)
    assert grid.width > 5 * 100
    assert grid.height > 2 * 100
