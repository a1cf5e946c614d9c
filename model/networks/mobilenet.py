"""MobileNet encoders under torchvision's parameter names, so that anyone's ImageNet weights for those load here."""

from collections.abc import Mapping

from torch import Tensor, nn

from model.networks.blocks import SqueezeExcite, conv_norm

_V2_STAGES = (  # expansion, channels, repeats, stride: table 2 of arXiv:1801.04381
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_V3_LARGE = (  # kernel, expanded, channels, squeeze-excitation, hard swish, stride: table 1 of arXiv:1905.02244
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class Encoder(nn.Module):
    """A backbone cut into what it sees at each scale.

    Attributes:
        features: the layers, indexed as in torchvision.
        taps: layers of `features` whose output is handed on, one for each of 1/2, 1/4, 1/8, 1/16 and 1/32.
        channels: channels of each.
    """

    def __init__(self, features: nn.Sequential, taps: tuple[int, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.features = features
        self.taps = taps
        self.channels = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """Float [N, 3, H, W] -> five maps, from [N, C, H/2, W/2] to [N, C, H/32, W/32]."""
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


class _V2Block(nn.Module):
    """Inverted residual of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Sequential(*conv_norm(inputs, hidden, 1), nn.ReLU6(inplace=True)))
        layers.append(nn.Sequential(*conv_norm(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)))
        layers.extend(conv_norm(hidden, outputs, 1))
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class _V3Block(nn.Module):
    """Inverted residual of MobileNetV3, squeeze-excitation on the expanded channels."""

    def __init__(
        self, inputs: int, kernel: int, hidden: int, outputs: int, squeeze: bool, swish: bool, stride: int
    ) -> None:
        super().__init__()

        def activation() -> nn.Module:
            return nn.Hardswish(inplace=True) if swish else nn.ReLU(inplace=True)

        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(nn.Sequential(*_v3(conv_norm(inputs, hidden, 1)), activation()))
        layers.append(nn.Sequential(*_v3(conv_norm(hidden, hidden, kernel, stride, groups=hidden)), activation()))
        if squeeze:
            layers.append(SqueezeExcite(hidden, _divisible(hidden / 4), nn.Hardsigmoid()))
        layers.append(nn.Sequential(*_v3(conv_norm(hidden, outputs, 1))))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return x + out if self.residual else out


def mobilenet_v2() -> Encoder:
    """MobileNetV2 at width 1 without its classifier; the last map has 1280 channels."""
    layers: list[nn.Module] = [nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU6(inplace=True))]
    inputs = 32
    for expansion, outputs, repeats, stride in _V2_STAGES:
        for repeat in range(repeats):
            layers.append(_V2Block(inputs, outputs, stride if repeat == 0 else 1, expansion))
            inputs = outputs
    layers.append(nn.Sequential(*conv_norm(inputs, 1280, 1), nn.ReLU6(inplace=True)))
    return Encoder(nn.Sequential(*layers), (1, 3, 6, 13, 18), (16, 24, 32, 96, 1280))


def mobilenet_v3_large() -> Encoder:
    """MobileNetV3-Large without its classifier; the last map has 960 channels."""
    layers: list[nn.Module] = [nn.Sequential(*_v3(conv_norm(3, 16, 3, 2)), nn.Hardswish(inplace=True))]
    inputs = 16
    for kernel, hidden, outputs, squeeze, swish, stride in _V3_LARGE:
        layers.append(_V3Block(inputs, kernel, hidden, outputs, squeeze, swish, stride))
        inputs = outputs
    layers.append(nn.Sequential(*_v3(conv_norm(inputs, 960, 1)), nn.Hardswish(inplace=True)))
    return Encoder(nn.Sequential(*layers), (1, 3, 6, 12, 16), (16, 24, 40, 112, 960))


def load_imagenet(encoder: Encoder, state: Mapping[str, Tensor]) -> None:
    """Load a state_dict as torchvision saves it for the same architecture; its classifier is left out.

    Raises:
        ValueError: when a layer is missing, left over or of another shape; it names the first few.
    """
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    expected = encoder.state_dict()
    # Weights from before batch norms counted their batches lack that counter; it does not matter here.
    missing = [name for name in expected if name not in features and not name.endswith("num_batches_tracked")]
    unknown = [name for name in features if name not in expected]
    shapes = [
        f"{name} {list(value.shape)} != {list(expected[name].shape)}"
        for name, value in features.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f"these weights are not for this encoder: missing {missing[:3]}, unknown {unknown[:3]}, shapes {shapes[:3]}"
        )
    encoder.load_state_dict(features, strict=False)


def _v3(layers: tuple[nn.Conv2d, nn.BatchNorm2d]) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """MobileNetV3 was trained with its own batch norm constants; others would change what its weights compute."""
    layers[1].eps, layers[1].momentum = 1e-3, 1e-2
    return layers


def _divisible(channels: float) -> int:
    """The nearest multiple of eight that is at most a tenth too small, as both papers' code rounds."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
