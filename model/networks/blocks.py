"""What encoders and decoders are made of, written so that an exporter and TensorRT can fuse it."""

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Bring RGB in 0..1 to the mean and spread that ImageNet encoders were trained with."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Constants of the network, not learnt state: a checkpoint has no use for them.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Float [N, 3, H, W] in and out."""
        return (rgb - self.mean) * self.inverse_std


class SqueezeExcite(nn.Module):
    """Scale every channel by what the whole picture says of it (Hu et al., 2018, arXiv:1709.01507).

    Args:
        channels: of input and output.
        squeezed: channels of the bottleneck.
        gate: turns the bottleneck's answer into factors.

    The layers carry the names that torchvision gives them, so that its weights load.
    """

    def __init__(self, channels: int, squeezed: int, gate: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU(inplace=True)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] in and out."""
        # A mean over fixed axes exports as one ReduceMean; adaptive pooling brings Shape nodes along.
        squeezed = self.activation(self.fc1(x.mean((2, 3), keepdim=True)))  # [N, squeezed, 1, 1]
        factors: Tensor = self.gate(self.fc2(squeezed))
        return x * factors


class LightBlock(nn.Module):
    """Depthwise 3x3, pointwise 1x1, batch norm, ReLU6 and squeeze-excitation: a tenth of a full convolution's work.

    Args:
        inputs: channels in.
        outputs: channels out.
        article_order: squeeze-excitation before batch norm, as in the article this network is built after. It costs
            speed: the batch norm then cannot be folded into the convolution, and the clip stays on its own.
    """

    def __init__(self, inputs: int, outputs: int, article_order: bool = False) -> None:
        super().__init__()
        attention = SqueezeExcite(outputs, max(outputs // 8, 4), nn.Sigmoid())
        norm_and_clip = (nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            *((attention, *norm_and_clip) if article_order else (*norm_and_clip, attention)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, inputs, H, W] -> [N, outputs, H, W]."""
        out: Tensor = self.layers(x)
        return out


def upsample(x: Tensor) -> Tensor:
    """Twice the sides, bilinear: float [N, C, H, W] -> [N, C, 2H, 2W]."""
    # A scale factor, not a size: sides stay symbolic in an export.
    return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution that keeps the sides (or divides them by `stride`), and its batch norm."""
    padding = (kernel - 1) // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)
