"""The plain U-Net that the light networks are measured against."""

from torch import Tensor, cat, nn

from model.networks.blocks import Normalise, conv_norm, upsample

_WIDTHS = (32, 64, 128, 256, 576, 1152)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """Two full 3x3 convolutions."""
    return nn.Sequential(
        *conv_norm(inputs, outputs), nn.ReLU(inplace=True), *conv_norm(outputs, outputs), nn.ReLU(inplace=True)
    )


class CvUNet(nn.Module):
    """Six levels of two full convolutions each, down by max pooling, up by bilinear interpolation; 38 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.down = nn.ModuleList(_double(a, b) for a, b in zip((3, *_WIDTHS), _WIDTHS, strict=False))
        self.up = nn.ModuleList(
            _double(below + here, here) for below, here in zip(_WIDTHS[:0:-1], _WIDTHS[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)
        self.auxiliary = nn.Conv2d(_WIDTHS[3], 1, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Float [N, 3, H, W] in 0..1 -> logits, float [N, 1, H, W]."""
        return self.coarse_and_fine(rgb)[1]

    def coarse_and_fine(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at an eighth of the size, which only training looks at, and at full size."""
        x = self.normalise(rgb)
        skips: list[Tensor] = []
        for level, layer in enumerate(self.down):
            x = layer(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        coarse = x
        for layer in self.up:
            x = layer(cat((upsample(x), skips.pop()), 1))
            if x.shape[1] == _WIDTHS[3]:
                coarse = x  # [N, 256, H/8, W/8]
        return self.auxiliary(coarse), self.head(x)
