"""Whether a forward is computed, or only written down as a graph that others will compute with other inputs."""

import torch


def becomes_a_graph() -> bool:
    """Whether `torch.compile`, `torch.export` or `torch.jit.trace` looks on.

    Nothing may then be decided by the values of a tensor: the graph would keep the decision, and be silently wrong for
    others.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined] # documented
