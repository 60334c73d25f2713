"""The curve of a stage is short, whatever it was made of, and ends with the last values."""

import pytest

from fmri_models.training.curve import MAX_POINTS, curve, is_point, mean_loss, no_losses, with_loss


@pytest.mark.parametrize("num_steps", [1, 2, 19, 20, 21, 39, 40, 41, 999, 1000, 100_003])
@pytest.mark.parametrize("every", [1, 7, 100])
def test_a_curve_is_short_and_ends_with_the_last_values(num_steps, every):
    steps = range(1, num_steps + 1)
    trained = [{"step": step, "loss": 1 / step} for step in steps if is_point(step, num_steps)]
    validated = [{"step": step, "loss": 2 / step} for step in steps if step % every == 0 or step == num_steps]
    points = curve(trained, validated)
    assert min(num_steps, MAX_POINTS) // 2 <= len(points) <= 2 * MAX_POINTS
    assert [point["step"] for point in points] == sorted({point["step"] for point in points})
    assert points[-1] == {
        "step": num_steps,
        "train_loss": pytest.approx(1 / num_steps, rel=1e-5),
        "validation_loss": pytest.approx(2 / num_steps, rel=1e-5),
    }


def test_what_was_not_measured_is_none():
    assert curve([{"step": 2, "loss": 0.5}], []) == [{"step": 2, "train_loss": 0.5, "validation_loss": None}]
    points = curve([{"step": 2, "loss": 0.5}], [{"step": 1, "loss": float("nan")}, {"step": 2, "retrieval": 1.0}])
    assert [point["validation_loss"] for point in points] == [None, None]
    assert curve([], []) == []


def test_the_running_loss_is_the_mean_over_steps_and_processes():
    assert mean_loss([with_loss(with_loss(no_losses(), 1.0), 2.0), {"sum": 5.0, "steps": 2}]) == 2.0
