"""One stage of training by gradient: what happens in a step and in a validation. The loop around it is `loop.py`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch

from ..batch import Batch
from ..data.batches import BatchOrder, SeededBatches, ordered_batches, training_batches, with_unpaired
from ..data.loading import Examples, TrialDataset
from ..draws import StepGenerator
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..modeling_fmri import FmriPreTrainedModel
from ..objectives import Gather, GradientObjective
from .cached_gradient import JoinedBatches, only_reading
from .finite import NotFiniteError, not_finite_among, not_finite_in
from .learning_generator import FrozenGenerator, GeneratorTraining, LearningGenerator
from .options import TrainingOptions
from .precision import computed_precision
from .processes import (
    any_process,
    average_gradients,
    copy_from_main,
    from_all,
    gather_examples,
    join_examples,
    uses_cpu_processes,
)
from .randomness import Draw, StageIdentity
from .sampling import batch_order
from .trained_weights import TrainedWeights


class TargetsOfBatch(Protocol):
    """Makes targets of a batch when it is learned from, such as embeddings of augmented pictures."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, on its device, with these targets.

        Args:
            batch: What the data gives.
            generator: Source of all draws; on the CPU.
        """


class _MicroBatch(NamedTuple):
    """One of the batches of a step, and from which state of its generator the objective draws."""

    number: int
    batch: Batch
    draws: torch.Tensor


class GradientStage:
    """Model, optimiser and data of a stage.

    Everything random in a step is a function of seed, stage and step: the order of the examples and what the objective
    draws from its generator. Dropout, for which PyTorch is seeded anew in each step, and changes of pictures are
    functions of the process, too. Going on from a checkpoint therefore needs no state of any random generator.

    Args:
        model: Is moved to the device and trained in place.
        objective: What is minimised.
        options: How to train.
        data: Examples to learn from.
        held_out: Examples to validate on; None does not validate.
        identity: Name, number and seed.
        trackers: Accelerate's names of trackers.
        log_folder: Where trackers write that need a folder.
        online_targets: Makes targets of each batch that is learned from; None takes those of the data.
        generator: The recipe's image generator, for objectives that minimise its loss or train through it.
        generator_training: What of it is trained, too; None for nothing.
        unpaired: Further sources of fMRI without pictures.
        among: Parameters of the model that may be trained; None for all.

    Attributes:
        num_steps: Updates in the whole stage.
        weights: What is trained.

    Raises:
        FmriModelsError: The options do not fit the machine or the data.
    """

    def __init__(
        self,
        model: FmriPreTrainedModel,
        objective: GradientObjective[Any],
        options: TrainingOptions,
        data: Examples,
        held_out: Examples | None,
        identity: StageIdentity,
        trackers: list[str] | None = None,
        log_folder: Path | None = None,
        online_targets: TargetsOfBatch | None = None,
        generator: ImageGenerator | None = None,
        generator_training: GeneratorTraining | None = None,
        unpaired: Sequence[TrialDataset] = (),
        among: Sequence[torch.nn.Parameter] | None = None,
    ) -> None:
        self.accelerator = _accelerator(options, trackers or [], log_folder)
        self.model = model.to(self.accelerator.device)
        self.objective = objective
        self.options = options
        self.data = data
        self.held_out = held_out
        self.identity = identity
        self.online_targets = online_targets
        self.order = self._order()
        self.num_steps = options.num_steps(self.order.batches_an_epoch)
        self.unpaired = list(unpaired)
        self.learning: LearningGenerator | None = None
        self.frozen: FrozenGenerator | None = None
        if generator is not None and generator_training is not None:
            self.learning = LearningGenerator(generator, generator_training, self.accelerator.device)
        elif generator is not None:
            self.frozen = FrozenGenerator(generator, self.accelerator.device)
        objective.image_generator = generator
        if self.frozen is not None:
            objective.ask_for_generator = self.frozen
        objective.prepare(self.model, data)
        copy_from_main(model)
        further = {} if self.learning is None else self.learning.parameters
        self.weights = TrainedWeights(self.model, objective, options, self.accelerator, further, among)
        if not self.weights.parameters:
            raise FmriModelsError(f"The stage {identity.name!r} trains no parameter; check its objective.")

    def batches(self, step: int) -> Iterator[Batch]:
        """Batches from the first one of a step on, without end."""
        first, pin_memory = step * self.options.gradient_accumulation_steps, self.accelerator.device.type == "cuda"
        batches = training_batches(self.data, self._order(first), pin_memory)
        others = [
            training_batches(source, self._order_of(source, first, self.identity.order_seed + number), pin_memory)
            for number, source in enumerate(self.unpaired, start=1)
        ]
        return with_unpaired(batches, others)

    def update(self, step: int, batches: Iterator[Batch]) -> dict[str, float]:
        """One step: losses and gradients of its batches, and the optimiser's update.

        Args:
            step: Number of the step, from 0.
            batches: Gives the step's batches.

        Returns:
            The step's losses, its learning rate, and the norm of the gradient.

        Raises:
            NotFiniteError: A loss, a batch or the gradient is not finite; weights are as before the step.
        """
        self.weights.begin_step(step, self.num_steps)
        self._train_mode(True)
        accumulate = self._join if self.options.gradient_accumulation == "cached" else self._separate
        losses = _means(accumulate(step, batches))
        average_gradients(self.weights.parameters)
        norm = self.weights.clip_gradients()
        # An optimiser that rounds at random has to do so alike in all processes.
        self.identity.seeded(Draw.ROUNDING, step)
        self.weights.end_step()
        return {**losses, "learning_rate": self.weights.learning_rate, "gradient_norm": norm}

    @torch.no_grad()
    def validate(self, max_batches: int | None = None) -> dict[str, float]:
        """Metrics on held-out examples: batches weighted by these, the same random numbers each time.

        Args:
            max_batches: Stop after so many batches of this process.
        """
        assert self.held_out is not None
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        sums: dict[str, float] = {}
        examples = 0
        with self._weights_to_judge():
            for done, batch in enumerate(ordered_batches(self.held_out, self.options.batch_size, rank, world)):
                if done == max_batches:
                    break
                generator = self.identity.seeded(Draw.VALIDATION, batch.pop("number"))
                with self.accelerator.autocast():
                    metrics = self.objective.validation_metrics(self.model, self._to_device(batch), generator)
                examples += len(batch["fmri"])
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(batch["fmri"])
        return _joined_means(from_all((sums, examples)))

    def monitored(self, metrics: Mapping[str, float]) -> float:
        """The metric that chooses the best weights.

        Raises:
            FmriModelsError: The objective does not measure it.
        """
        if self.options.monitor not in metrics:
            raise FmriModelsError(
                f"The stage {self.identity.name!r} monitors {self.options.monitor!r}, which its objective does not "
                f"measure; it measures {', '.join(sorted(metrics))}."
            )
        return metrics[self.options.monitor]

    def close(self) -> None:
        """Lets go of the device and of what was frozen; the model goes back to the CPU and to float32."""
        self.weights.close()
        if self.learning is not None:
            self.learning.close()
        if self.frozen is not None:
            self.frozen.close()
        self.objective.image_generator = None
        self.accelerator.free_memory()
        self.model.to("cpu").eval()

    def _train_mode(self, mode: bool) -> None:
        self.model.train(mode)
        if self.learning is not None:
            self.learning.train(mode)

    def _order(self, first: int = 0) -> BatchOrder:
        process, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        return batch_order(self.data, self.options, self.identity.order_seed, first, process, num_processes)

    def _order_of(self, data: TrialDataset, first: int, seed: int) -> SeededBatches:
        process, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        return SeededBatches(len(data), self.options.batch_size, seed, first, process, num_processes)

    def _separate(self, step: int, batches: Iterator[Batch]) -> list[dict[str, float]]:
        """Gradients of the mean loss of a step's batches, each for itself; gives the losses of each."""
        numbers = range(self.options.gradient_accumulation_steps)
        return [self._learn(step, self._micro_batch(step, number, batches), self._gather) for number in numbers]

    def _join(self, step: int, batches: Iterator[Batch]) -> list[dict[str, float]]:
        """Gradients of the loss of all of a step's batches together; gives the losses of each."""
        numbers = range(self.options.gradient_accumulation_steps)
        *others, last = [self._micro_batch(step, number, batches) for number in numbers]
        joined = JoinedBatches(len(numbers), self._shares[1], self._gather)
        with only_reading(self.model):
            for each in others:
                self._losses(step, each, joined.reading(each.number))
        # The last one needs no reading: what the others compare is known by then.
        return [self._learn(step, each, joined.learning(each.number)) for each in (last, *others)]

    def _micro_batch(self, step: int, number: int, batches: Iterator[Batch]) -> _MicroBatch:
        batch = self._to_device(next(batches))
        unpaired = (not_finite_in(each) for each in batch.get("unpaired", []))
        self._stop_all(not_finite_in(batch) or next((each for each in unpaired if each), None))
        generator = self._seeded_for(step, number)
        if self.online_targets is not None:
            batch = self.online_targets(batch, self._of_process(step, number, generator))
        return _MicroBatch(number, {**batch, "step": step}, generator.get_state())

    def _losses(self, step: int, micro_batch: _MicroBatch, gather: Gather) -> dict[str, torch.Tensor]:
        """The objective's losses, the same each time that they are asked for."""
        generator = self._seeded_for(step, micro_batch.number)
        generator.set_state(micro_batch.draws)
        with self.accelerator.autocast():
            return self.objective.losses(self.model, micro_batch.batch, step / self.num_steps, gather, generator)

    @property
    def _shares(self) -> tuple[int, int]:
        """Which of how many processes this is that compare and mix their examples with each other."""
        alone = self.options.negatives == "process"
        return (0, 1) if alone else (self.accelerator.process_index, self.accelerator.num_processes)

    def _gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.options.negatives == "process" else gather_examples(tensor)

    def _seeded_for(self, step: int, number: int) -> StepGenerator:
        """The source of a batch's draws, the same in processes that compare their examples; seeds PyTorch for each."""
        numbers, index = (step, number), self.accelerator.process_index
        common = 0 if self.options.negatives == "global" else index
        generator = StepGenerator(*self._shares, join_examples)
        generator.set_state(self.identity.seeded(Draw.STEP, *numbers, common).get_state())
        if index != common:
            self.identity.seeded(Draw.STEP, *numbers, index)
        return generator

    def _of_process(self, step: int, number: int, generator: torch.Generator) -> torch.Generator:
        """What changes of pictures are drawn from: a source of its own where processes share the other."""
        if self._shares[1] == 1:
            return generator
        return self.identity.seeded(Draw.STEP, step, number, self.accelerator.process_index, 1)

    def _learn(self, step: int, micro_batch: _MicroBatch, gather: Gather) -> dict[str, float]:
        """Adds the gradients of a batch's losses; gives the losses."""
        losses = self._losses(step, micro_batch, gather)
        values = self._values(losses)
        self._stop_all(not_finite_among(values))
        self.accelerator.backward(losses["loss"].float() / self.options.gradient_accumulation_steps)
        return values

    def _to_device(self, batch: Batch) -> Batch:
        moved = _moved(batch, self.accelerator.device)
        if "unpaired" in batch:
            moved["unpaired"] = [_moved(each, self.accelerator.device) for each in batch["unpaired"]]
        return cast(Batch, moved)

    def _values(self, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """The losses as numbers, with one copy from the device for all."""
        if "loss" not in losses:
            raise FmriModelsError(
                f"{type(self.objective).__name__}.losses gives no 'loss', which is what is minimised."
            )
        numbers = torch.stack([value.detach().float() for value in losses.values()]).tolist()
        return dict(zip(losses, numbers, strict=True))

    def _stop_all(self, reason: str | None) -> None:
        """Raises in every process if one has a reason."""
        if any_process([reason is not None], self.accelerator.device)[0]:
            self.weights.drop_gradients()
            raise NotFiniteError(next(each for each in from_all(reason) if each))

    @contextmanager
    def _weights_to_judge(self) -> Iterator[None]:
        self._train_mode(False)
        with self.weights.averaged():
            yield
        self._train_mode(True)


def _moved(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The same with all tensors on a device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in values.items()
    }


def _accelerator(options: TrainingOptions, trackers: list[str], log_folder: Path | None) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps the precision of the first Accelerator in a process, but each stage has its own.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=computed_precision(options, uses_cpu_processes() or not torch.cuda.is_available()),
        cpu=uses_cpu_processes(),
        log_with=trackers or None,
        project_dir=None if log_folder is None else str(log_folder),
    )


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    """Means over the micro-batches of a step."""
    names = dict.fromkeys(name for each in losses for name in each)
    return {name: sum(each.get(name, 0.0) for each in losses) / len(losses) for name in names}


def _joined_means(of_processes: list[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Means over all examples from each process' sums and numbers of examples."""
    sums: dict[str, float] = {}
    for of_one, _ in of_processes:
        for name, value in of_one.items():
            sums[name] = sums.get(name, 0.0) + value
    examples = sum(count for _, count in of_processes)
    return {name: value / examples for name, value in sums.items()}
