"""The light networks: a MobileNet encoder and a decoder of depthwise-separable blocks."""

from torch import Tensor, cat, nn

from model.networks.blocks import LightBlock, Normalise, conv_norm, upsample
from model.networks.mobilenet import Encoder


class Context(nn.Module):
    """Lets every place at 1/32 see the whole picture before anything is decoded.

    Close-ups are why: a subject larger than the encoder's field of view comes out with holes.

    Args:
        inputs: channels of the encoder's last map.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(*conv_norm(inputs, outputs, 1), nn.ReLU6(inplace=True))
        self.near = nn.Sequential(*conv_norm(outputs, outputs, 5, groups=outputs), nn.ReLU6(inplace=True))
        self.far = nn.Sequential(*conv_norm(outputs, outputs, 5, dilation=2, groups=outputs), nn.ReLU6(inplace=True))
        self.whole = nn.Conv2d(inputs, outputs, 1)
        self.mix = nn.Sequential(*conv_norm(3 * outputs, outputs, 1), nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, inputs, H/32, W/32] -> [N, outputs, H/32, W/32]."""
        reduced = self.reduce(x)
        mixed = self.mix(cat((reduced, self.near(reduced), self.far(reduced)), 1))
        out: Tensor = mixed + self.whole(x.mean((2, 3), keepdim=True))
        return out


class FineHead(nn.Module):
    """From half size to logits at full size, with the picture itself as guide for edges one pixel wide.

    At full size every channel is dear, on a processor and a GPU alike (memory, not arithmetic): few go up.

    Args:
        inputs: channels at half size.
        channels: that go up to full size.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, channels, 1)
        self.refine = nn.Sequential(*conv_norm(channels + 3, channels), nn.ReLU6(inplace=True))
        self.logits = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor, rgb: Tensor) -> Tensor:
        """Float [N, inputs, H/2, W/2] and [N, 3, H, W] -> [N, 1, H, W]."""
        out: Tensor = self.logits(self.refine(cat((upsample(self.narrow(x)), rgb), 1)))
        return out


class BlockHead(nn.Module):
    """From half size to logits at full size by light blocks like any other stage, as in the article.

    Args:
        inputs: channels at half size.
        channels: at full size.
        blocks: light blocks.
        article_order: see `LightBlock`.
    """

    def __init__(self, inputs: int, channels: int, blocks: int, article_order: bool) -> None:
        super().__init__()
        self.blocks = _stage(inputs + 3, channels, blocks, article_order)
        self.logits = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor, rgb: Tensor) -> Tensor:
        """Float [N, inputs, H/2, W/2] and [N, 3, H, W] -> [N, 1, H, W]."""
        out: Tensor = self.logits(self.blocks(cat((upsample(x), rgb), 1)))
        return out


class LiteUNet(nn.Module):
    """U-Net of a MobileNet encoder and light blocks.

    Args:
        encoder: gives five maps, 1/2 to 1/32.
        widths: the decoder's channels at 1/16, 1/8, 1/4 and 1/2.
        head: from 1/2 to full size.
        blocks: light blocks in each stage.
        context: channels of a `Context` on the last map; 0 decodes that map as it is.
        article_order: see `LightBlock`.
    """

    def __init__(
        self,
        encoder: Encoder,
        widths: tuple[int, int, int, int],
        head: nn.Module,
        blocks: int = 1,
        context: int = 0,
        article_order: bool = False,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.encoder = encoder
        deepest = encoder.channels[-1]
        self.context = Context(deepest, context) if context else nn.Identity()
        below = (context or deepest, *widths)
        skips = encoder.channels[-2::-1]
        self.decoder = nn.ModuleList(
            _stage(inputs + skip, outputs, blocks, article_order)
            for inputs, skip, outputs in zip(below, skips, widths, strict=False)
        )
        self.head = head
        self.auxiliary = nn.Conv2d(widths[1], 1, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Float [N, 3, H, W] in 0..1 -> logits, float [N, 1, H, W]."""
        return self.coarse_and_fine(rgb)[1]

    def coarse_and_fine(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at an eighth of the size, which only training looks at, and at full size."""
        normalised = self.normalise(rgb)
        skips = self.encoder(normalised)
        x = self.context(skips.pop())
        coarse = x
        for stage, layer in enumerate(self.decoder):
            x = layer(cat((upsample(x), skips.pop()), 1))
            if stage == 1:
                coarse = x  # [N, widths[1], H/8, W/8]
        return self.auxiliary(coarse), self.head(x, normalised)


def _stage(inputs: int, outputs: int, blocks: int, article_order: bool) -> nn.Sequential:
    first = LightBlock(inputs, outputs, article_order)
    return nn.Sequential(first, *(LightBlock(outputs, outputs, article_order) for _ in range(blocks - 1)))
