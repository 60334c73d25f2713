import numpy as np
import pytest
import torch

from fmri_models.alignment.token_components import TokenComponents

SIZE = 12


@pytest.fixture
def tokens() -> np.ndarray:
    """Tokens whose variances fall by ten thousand from the first to the last direction."""
    draws = np.random.default_rng(0).standard_normal((200, SIZE)) * np.logspace(0, -2, SIZE)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((SIZE, SIZE)))
    return (draws @ rotation + 3).astype(np.float32)


def fitted(tokens: np.ndarray, max_components: int = SIZE, whitening: float = 1.0) -> TokenComponents:
    components = TokenComponents(SIZE, max_components)
    components.fit(tokens, whitening)
    return components


@pytest.mark.parametrize("whitening", [0.0, 0.7, 1.0])
def test_all_components_give_the_tokens_back(tokens: np.ndarray, whitening: float) -> None:
    components = fitted(tokens, whitening=whitening)
    again = components(components.scores(torch.from_numpy(tokens)))
    torch.testing.assert_close(again, torch.from_numpy(tokens), atol=1e-4, rtol=1e-4)


def test_scores_are_what_tokens_were_made_of(tokens: np.ndarray) -> None:
    components = fitted(tokens, max_components=5)
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(components.scores(components(scores)), scores, atol=1e-4, rtol=1e-4)


def test_whitening_evens_the_variances_out(tokens: np.ndarray) -> None:
    def spread(whitening: float) -> float:
        variances = fitted(tokens, whitening=whitening).scores(torch.from_numpy(tokens)).var(dim=0)
        assert float(variances.mean()) == pytest.approx(1, rel=0.02)
        return float(variances.max() / variances.min())

    none, some, full = spread(0.0), spread(0.7), spread(1.0)
    assert none > 1000
    # What lies below a thousandth of the largest variance is not scaled up any further.
    assert full < some < none
    assert full == pytest.approx(11, rel=0.3)


def test_fewer_pictures_than_components_leave_zeros(tokens: np.ndarray) -> None:
    components = fitted(tokens[:4], max_components=8)
    scores = components.scores(torch.from_numpy(tokens[:4]))
    assert scores.shape == (4, 8)
    assert bool(torch.isfinite(scores).all())
    assert scores[:, 4:].abs().max() == 0
    torch.testing.assert_close(components(scores), torch.from_numpy(tokens[:4]), atol=1e-4, rtol=1e-4)


def test_there_are_no_more_components_than_values() -> None:
    assert TokenComponents(SIZE, 1000).num_components == SIZE


def test_a_state_dict_carries_what_was_fitted(tokens: np.ndarray) -> None:
    components, other = fitted(tokens, max_components=5), TokenComponents(SIZE, 5)
    assert not other.is_fitted
    other.load_state_dict(components.state_dict())
    assert other.is_fitted
    scores = torch.randn(3, 5)
    assert torch.equal(other(scores), components(scores))


def test_half_precision_stays_half_precision(tokens: np.ndarray) -> None:
    components = fitted(tokens).to(torch.bfloat16)
    assert components(torch.zeros(2, SIZE, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_memory_without_values_is_initialised_as_a_new_module_is() -> None:
    with torch.device("meta"):
        components = TokenComponents(6, 4)
    components.to_empty(device="cpu")
    with torch.no_grad():
        for buffer in components.buffers():
            buffer.fill_(float("nan"))
    components.reset_parameters()
    for name, value in TokenComponents(6, 4).named_buffers():
        assert torch.equal(components.get_buffer(name), value)
