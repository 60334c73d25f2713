"""Retrieval accuracy: directions and pools."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import retrieval_accuracy
from fmri_models.evaluation.retrieval import hits_from_ranks

FIXTURES = Path(__file__).parent.parent / "fixtures" / "evaluation"


def embeddings(count=30, noise=1.0, size=16):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(count, size, generator=generator)
    return image + noise * torch.randn(count, size, generator=generator), image


def test_both_directions_equal_the_original():
    fixture = load_file(FIXTURES / "eval_retrieval.safetensors")
    brain, image, pools = fixture["brain_emb"], fixture["image_emb"], fixture["sample_idx"]
    # The original's "bwd" finds the image of a brain response, its "fwd" the brain response of an image.
    for query, name in (("brain", "bwd"), ("image", "fwd")):
        full = retrieval_accuracy(brain, image, query=query)
        assert full == pytest.approx(fixture[f"full_{query}_query"].item(), abs=1e-7)
        assert full == pytest.approx(fixture[f"full_{name}"].item(), abs=1e-7)
        inside = retrieval_accuracy(brain, image, query=query, pools=pools, reduction="none")
        torch.testing.assert_close(inside.mean(1).float(), fixture[name], atol=1e-7, rtol=0)


def test_directions_differ_when_one_brain_response_attracts_all_pictures():
    image = torch.eye(4) + 0.1
    brain = image.clone()
    # Responses 1 to 3 point near their pictures but are nearer still to others' than response 0 is.
    brain[0] = image.sum(0)
    assert retrieval_accuracy(brain, image, query="image") != retrieval_accuracy(brain, image, query="brain")


def test_perfect_random_and_constant_embeddings():
    brain, image = embeddings(200, noise=0.0)
    assert retrieval_accuracy(brain, image) == retrieval_accuracy(brain, image, query="image") == 1
    unrelated = torch.randn(image.shape, generator=torch.Generator().manual_seed(9))
    assert retrieval_accuracy(unrelated, image, top_k=20) == pytest.approx(0.1, abs=0.06)
    constant = torch.ones_like(image)
    assert retrieval_accuracy(constant, image, query="image") == 0
    assert retrieval_accuracy(constant, image, query="brain") == pytest.approx(1 / 200)


def test_top_k_grows_and_items_average_to_the_mean():
    brain, image = embeddings(noise=2.0)
    values = [retrieval_accuracy(brain, image, top_k=k) for k in (1, 5, 30)]
    assert values[0] < values[1] < values[2] == 1
    items = retrieval_accuracy(brain, image, reduction="none")
    assert items.shape == (30,)
    assert items.mean().item() == pytest.approx(values[0])


def test_random_pools_are_seeded_and_easier_than_the_whole_set():
    brain, image = embeddings(100, noise=2.0)
    options = {"pool_size": 10, "repeats": 200}
    first = retrieval_accuracy(brain, image, seed=1, **options)
    assert first == retrieval_accuracy(brain, image, seed=1, **options)
    assert first != retrieval_accuracy(brain, image, seed=2, **options)
    assert first > retrieval_accuracy(brain, image)


def test_expectation_over_pools_equals_many_random_pools():
    brain, image = embeddings(40, noise=2.0)
    sampled = retrieval_accuracy(brain, image, pool_size=8, repeats=4000)
    similarity = torch.nn.functional.normalize(image, dim=1) @ torch.nn.functional.normalize(brain, dim=1).T
    not_beaten = (similarity >= similarity.diagonal()).sum(0) - 1
    assert hits_from_ranks(not_beaten, 39, 1, pool_size=8).mean().item() == pytest.approx(sampled, abs=0.01)


def test_bad_input_is_refused():
    brain, image = embeddings()
    with pytest.raises(FmriModelsError, match="'brain' or 'image'"):
        retrieval_accuracy(brain, image, query="both")
    with pytest.raises(FmriModelsError, match="pool of 31"):
        retrieval_accuracy(brain, image, pool_size=31)
    with pytest.raises(FmriModelsError, match="indices from 0 to 30"):
        retrieval_accuracy(brain, image, pools=torch.arange(31)[None])
    with pytest.raises(FmriModelsError, match="NaN"):
        retrieval_accuracy(brain * float("nan"), image)


def test_a_vector_of_zeros_is_similar_to_nothing():
    image = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    image[2] = 0
    brain = image.clone()
    brain[4] = 0
    for query, failed in (("brain", [2, 4]), ("image", [2, 4])):
        hits = retrieval_accuracy(brain, image, query=query, reduction="none")
        assert [index for index in range(6) if hits[index] == 0] == failed
        inside = retrieval_accuracy(brain, image, query=query, pools=torch.tensor([[0, 2, 4]]), reduction="none")
        assert inside.tolist() == [[1, 0, 0]]
