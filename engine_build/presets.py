"""What well-known families of networks expect and give, and under which licence their weights are."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine_build.wrap import Recipe
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

_HALF = (0.5, 0.5, 0.5)
_ONE = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Preset:
    """A family.

    Attributes:
        recipe: for the ONNX files that are usually passed on.
        size: that it was trained at.
        licence: of the weights that are usually passed on; a user's file may have another.
        origin: where it comes from.
        commercial: whether that licence lets a business use it.
    """

    recipe: Recipe
    size: SizeBucket
    licence: str
    origin: str
    commercial: bool = True


# Sources: the inference code of each upstream repository.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "u2net": Preset(Recipe(), SizeBucket(320, 320), "Apache-2.0", "https://github.com/xuebinqin/U-2-Net"),
        "isnet": Preset(
            Recipe(mean=_HALF, std=_ONE), SizeBucket(1024, 1024), "Apache-2.0", "https://github.com/xuebinqin/DIS"
        ),
        "birefnet": Preset(
            Recipe(sigmoid=True), SizeBucket(1024, 1024), "MIT", "https://github.com/ZhengPeng7/BiRefNet"
        ),
        "rmbg-1.4": Preset(
            Recipe(mean=_HALF, std=_ONE),
            SizeBucket(1024, 1024),
            "bria-rmbg-1.4 (non-commercial)",
            "https://huggingface.co/briaai/RMBG-1.4",
            commercial=False,
        ),
        "rmbg-2.0": Preset(
            Recipe(),
            SizeBucket(1024, 1024),
            "CC-BY-NC-4.0",
            "https://huggingface.co/briaai/RMBG-2.0",
            commercial=False,
        ),
        "modnet": Preset(
            Recipe(mean=_HALF, std=_HALF), SizeBucket(512, 512), "Apache-2.0", "https://github.com/ZHKKKe/MODNet"
        ),
        # Its graph takes 0..255 and normalises inside.
        "modelscope-cvunet": Preset(
            Recipe(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)),
            SizeBucket(1024, 1024),
            "Apache-2.0",
            "https://modelscope.cn/models/damo/cv_unet_universal-matting",
        ),
    }
)


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        SetupError: when there is none; it lists those there are.
    """
    if name not in PRESETS:
        raise SetupError(f"There is no preset named {name!r}.", f"presets: {', '.join(PRESETS)}")
    return PRESETS[name]
