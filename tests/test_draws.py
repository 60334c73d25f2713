"""Draws of a step are the same however many processes share its batch."""

from functools import partial

import pytest
import torch

from fmri_models.alignment.losses import draw_mixco, mixco
from fmri_models.draws import StepGenerator, drawn_by_row, joined_rows, own_rows

DRAWS = {
    "normal": (torch.randn, (2, 3)),
    "uniform": (torch.rand, (2,)),
    "integers": (partial(torch.randint, 0, 1000), (2, 4)),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_has_its_rows_of_one_draw(name, processes):
    draw, size = DRAWS[name]
    whole = draw((size[0] * processes, *size[1:]), generator=torch.Generator().manual_seed(5))
    parts = []
    for process in range(processes):
        generator = StepGenerator(process, processes)
        generator.manual_seed(5)
        parts.append(drawn_by_row(draw, size, generator))
    assert torch.equal(torch.cat(parts), whole)


def test_alone_and_with_a_generator_of_pytorch_it_is_the_plain_draw():
    for generator in (StepGenerator(), torch.Generator()):
        generator.manual_seed(1)
        expected = torch.rand(4, generator=torch.Generator().manual_seed(1))
        assert torch.equal(drawn_by_row(torch.rand, (4,), generator), expected)
        rows = torch.rand(4, 2)
        assert joined_rows(rows, generator) is rows and torch.equal(own_rows(rows, generator), rows)
    assert drawn_by_row(torch.rand, (4,), None).shape == (4,)


def test_mixing_across_processes_is_that_of_the_whole_batch():
    fmri, subject_ids = torch.rand(8, 5), torch.tensor([0, 1, 0, 1, 1, 0, 1, 0])
    draw = draw_mixco(subject_ids, torch.Generator().manual_seed(2))
    expected = mixco(fmri, draw.permutation, draw.betas, draw.select)
    mixed = []
    for process in range(2):
        generator = StepGenerator(process, 2, join=lambda rows: fmri if rows.ndim == 2 else subject_ids)
        generator.manual_seed(2)
        own = slice(4 * process, 4 * process + 4)
        drawn = draw_mixco(joined_rows(subject_ids[own], generator), generator)
        permutation, betas, select = (
            own_rows(each, generator) for each in (drawn.permutation, drawn.betas, drawn.select)
        )
        mixed.append(mixco(fmri[own], permutation, betas, select, joined_rows(fmri[own], generator)))
    assert torch.equal(torch.cat(mixed), expected)
