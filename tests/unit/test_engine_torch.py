"""What of the PyTorch engine can be told without a GPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from model.engines.torch import Contract, rungs  # noqa: E402 - not without PyTorch


@pytest.mark.parametrize(("largest", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_graphs_are_recorded_for_powers_of_two_and_the_largest_batch(largest: int, expected: list[int]) -> None:
    assert rungs(largest) == expected


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normalise = torch.nn.BatchNorm2d(3).eval()
        self.conv = torch.nn.Conv2d(3, 1, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        x = self.normalise(rgb)
        self.seen.append(x.dtype)
        return self.conv(x)


def test_half_is_half_inside_and_whole_at_both_ends() -> None:
    torch.manual_seed(2)
    network = Network().eval()
    images = torch.tensor(np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8))
    half, whole = Contract(network, half=True).eval(), Contract(network, half=False).eval()
    with torch.inference_mode():
        gap = half(images).int() - whole(images).int()
    assert gap.abs().max() <= 1
    assert half.network.seen == [torch.float16]
    assert half.normalise.weight.dtype == torch.float32
    assert network.conv.weight.dtype == torch.float32  # the caller's is untouched
