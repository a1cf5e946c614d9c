import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from model.codecs.decode import Picture
from model.codecs.scratch import Scratch
from model.compiled import compiled
from model.cutout import Cutout, cut, make_cutout, open_photo, render, warm_up
from model.subject import Box, framed, subject_box, suspects
from pipeline.errors import Code, PermanentError
from pipeline.recipe import Recipe
from pipeline.recipe_text import parse_recipe
from tests.drawings import SUBJECT, UInt8, disc, photo, saved, shrunk

MEGAPIXELS = 50


def made(recipe: str, data: bytes, alpha: UInt8, background: UInt8 | None = None) -> Cutout:
    return make_cutout(data, alpha, parse_recipe(recipe), background, MEGAPIXELS)


def opened(cutout: Cutout, mode: str) -> UInt8:
    with Image.open(io.BytesIO(cutout.body)) as image:
        image.load()
        assert image.mode == mode
        assert image.size == (cutout.width, cutout.height)
        return np.array(image)


def test_photos_that_share_memory_come_out_as_those_that_do_not() -> None:
    scratch = Scratch()
    for height, width in ((300, 400), (700, 500), (40, 30), (700, 501)):
        rgb, alpha = photo(height, width)
        data, small = saved(rgb, "JPEG"), shrunk(alpha, 4)
        shared = make_cutout(data, small, Recipe(), None, MEGAPIXELS, preview_side=100, scratch=scratch)
        assert shared == make_cutout(data, small, Recipe(), None, MEGAPIXELS, preview_side=100)


@pytest.mark.parametrize(
    ("recipe", "format", "mode"),
    [
        ("png", "PNG", "RGBA"),
        ("webp", "WEBP", "RGBA"),
        ("webp=90", "WEBP", "RGBA"),
        ("alpha", "PNG", "L"),
        ("background=#ffffff", "JPEG", "RGB"),
        ("jpeg=70,background=#ffffff", "JPEG", "RGB"),
        ("png,background=#ffffff", "PNG", "RGB"),
        ("webp,background=#ffffff", "WEBP", "RGB"),
    ],
)
def test_every_format(recipe: str, format: str, mode: str) -> None:
    rgb, alpha = photo()
    cutout = made(recipe, saved(rgb), alpha)
    pixels = opened(cutout, mode)
    with Image.open(io.BytesIO(cutout.body)) as image:
        assert image.format == format
    if mode == "L":
        np.testing.assert_array_equal(pixels, alpha)
    elif mode == "RGBA":
        np.testing.assert_array_equal(pixels[:, :, 3], alpha)
        assert np.abs(pixels[alpha == 255, :3].astype(int) - SUBJECT).mean() < 2
    else:
        assert np.abs(pixels[:20].astype(int) - 255).max() <= 2
        assert np.abs(pixels[150, 200].astype(int) - SUBJECT).max() <= 6
        # No fringe of the blue background: on white, an edge of red has red at its highest.
        assert (pixels[:, :, 0].astype(int) >= pixels[:, :, 2].astype(int) - (40 if "70" in recipe else 12)).all()


def test_lossless_webp_and_png_are_the_same_picture() -> None:
    rgb, alpha = photo()
    np.testing.assert_array_equal(
        opened(made("webp", saved(rgb), alpha), "RGBA"), opened(made("png", saved(rgb), alpha), "RGBA")
    )


def test_a_solid_background_is_an_exact_mix() -> None:
    rgb, alpha = photo()
    png = opened(made("png", saved(rgb), alpha), "RGBA").astype(np.int64)
    share = png[:, :, 3:]
    expected = (png[:, :, :3] * share + np.array((16, 32, 48)) * (255 - share) + 127) // 255
    np.testing.assert_array_equal(
        opened(made("png,background=#102030", saved(rgb), alpha), "RGB"), expected.astype(np.uint8)
    )


@pytest.mark.parametrize("size", [(40, 900), (900, 40), (299, 401), (1, 1)])
def test_a_background_image_covers_the_cutout(size: tuple[int, int]) -> None:
    rgb, alpha = photo()
    behind = np.full((*size, 3), (10, 200, 100), np.uint8)
    pixels = opened(made("png,background=wall.jpg", saved(rgb), alpha, behind), "RGB")
    assert (pixels[alpha == 0] == (10, 200, 100)).all()


def test_a_background_image_shows_its_middle() -> None:
    rgb, alpha = photo(300, 400)
    behind = np.zeros((300, 800, 3), np.uint8)
    behind[:, 200:600] = 255
    pixels = opened(made("png,background=wall.jpg", saved(rgb), alpha, behind), "RGB")
    assert (pixels[0] == 255).all()


def test_crop_is_tight_round_the_subject() -> None:
    rgb, alpha = photo(600, 800)
    visible = np.argwhere(alpha >= 13)
    (top, left), (bottom, right) = visible.min(0), visible.max(0) + 1
    cutout = made("crop", saved(rgb), shrunk(alpha, 1))
    assert (cutout.height, cutout.width) == (bottom - top, right - left)
    np.testing.assert_array_equal(opened(cutout, "RGBA")[:, :, 3], alpha[top:bottom, left:right])


@pytest.mark.parametrize("recipe", ["crop,margin=10%,square", "alpha,crop,margin=10%,square"])
def test_margin_and_square_reach_beyond_the_photo(recipe: str) -> None:
    rgb, alpha = photo(600, 800)
    rgb, alpha = np.ascontiguousarray(rgb[:, 280:]), np.ascontiguousarray(alpha[:, 280:])  # half the subject is gone
    cutout = made(recipe, saved(rgb), alpha)
    box = subject_box(alpha)
    assert box is not None
    side = max(box.height, box.width) + 2 * round(0.1 * max(box.height, box.width))
    assert (cutout.height, cutout.width) == (side, side)
    pixels = opened(cutout, "L" if "alpha" in recipe else "RGBA")
    assert (pixels[:, 0] == 0).all()
    matte = pixels if pixels.ndim == 2 else pixels[:, :, 3]
    assert int(matte.sum()) == int(alpha.sum())


def test_square_on_a_background() -> None:
    rgb, alpha = photo(300, 400)
    pixels = opened(made("png,background=#00ff00,crop,square", saved(rgb), alpha), "RGB")
    assert pixels.shape[0] == pixels.shape[1]
    assert (pixels[0, 0] == (0, 255, 0)).all()


def test_crop_ignores_specks_and_empty_mattes() -> None:
    rgb, alpha = photo(600, 800)
    speckled = alpha.copy()
    speckled[3:6, 3:6] = 255
    assert made("crop", saved(rgb), speckled).width == made("crop", saved(rgb), alpha).width
    nothing = made("crop", saved(rgb), np.zeros_like(alpha))
    assert (nothing.height, nothing.width, nothing.suspects) == (600, 800, ("empty",))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("recipe", ["max-side=200", "max-side=200,crop", "max-side=200,crop,margin=8%,square"])
@pytest.mark.parametrize("factor", [1, 5])
def test_max_side(format: str, recipe: str, factor: int) -> None:
    rgb, alpha = photo(900, 1200)
    cutout = made(recipe, saved(rgb, format, **({"quality": 95} if format == "JPEG" else {})), shrunk(alpha, factor))
    assert max(cutout.height, cutout.width) <= 200
    assert max(cutout.height, cutout.width) >= (200 if "crop" not in recipe else 190)
    pixels = opened(cutout, "RGBA")
    assert np.abs(pixels[cutout.height // 2, cutout.width // 2].astype(int) - (*SUBJECT, 255)).max() <= 6


def test_nothing_is_enlarged() -> None:
    rgb, alpha = photo(300, 400)
    cutout = made("max-side=5000", saved(rgb), alpha)
    assert (cutout.height, cutout.width) == (300, 400)


def test_max_side_decodes_a_jpeg_no_larger_than_it_must() -> None:
    rgb, alpha = photo(1600, 2000)
    picture = open_photo(saved(rgb, "JPEG"), parse_recipe("max-side=250"), shrunk(alpha, 8), MEGAPIXELS)
    assert picture.rgb.shape[:2] == (400, 500)


def test_despill_off_leaves_the_colours() -> None:
    rgb, alpha = photo()
    soft = (alpha > 0) & (alpha < 255)
    off = opened(made("despill=off", saved(rgb), alpha), "RGBA")
    np.testing.assert_array_equal(off[soft, :3], rgb[soft])
    on = opened(made("png", saved(rgb), alpha), "RGBA")
    assert np.abs(on[soft, :3].astype(int) - SUBJECT).mean() < 0.3 * np.abs(rgb[soft].astype(int) - SUBJECT).mean()


# Photos that are transparent already


def test_a_picture_that_is_cut_out_keeps_its_own_alpha() -> None:
    rgb, alpha = photo()
    mine = disc(300, 400, softness=20)
    cutout = made("png", saved(np.dstack([rgb, mine])), np.roll(alpha, 90, axis=1))
    pixels = opened(cutout, "RGBA")
    assert cutout.own_alpha
    np.testing.assert_array_equal(pixels[:, :, 3], mine)
    np.testing.assert_array_equal(pixels[mine > 0, :3], rgb[mine > 0])


def test_a_little_transparency_stays_and_the_model_does_the_rest() -> None:
    rgb, alpha = photo()
    corners = np.full((300, 400), 255, np.uint8)
    corners[140:160, 190:210] = 0
    cutout = made("png", saved(np.dstack([rgb, corners])), alpha)
    assert not cutout.own_alpha
    np.testing.assert_array_equal(opened(cutout, "RGBA")[:, :, 3], np.minimum(alpha, corners))


def test_own_alpha_with_crop_and_max_side() -> None:
    rgb, _ = photo(900, 1200)
    mine = disc(900, 1200)
    wrong = np.zeros((90, 120), np.uint8)
    wrong[40:50, 60:70] = 255
    cutout = made("crop,max-side=300", saved(np.dstack([rgb, mine])), wrong)
    pixels = opened(cutout, "RGBA")
    assert max(pixels.shape) <= 300
    assert (pixels[0, :, 3] > 12).any()
    assert (pixels[:, -1, 3] > 12).any()


# Metadata and profiles


def exif(**tags: object) -> Image.Exif:
    found = Image.Exif()
    found[0x8298] = "(c) somebody"
    found[0x0112] = 6
    found.get_ifd(0x8825)[1] = "N"
    found.get_ifd(0x8769)[0xA002] = 5
    return found


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("recipe", ["png", "webp", "background=#fff"])
def test_metadata_is_dropped_unless_kept(format: str, recipe: str) -> None:
    rgb, alpha = photo()
    data = saved(rgb, format, exif=exif())
    upright = np.ascontiguousarray(np.rot90(alpha, -1))
    with Image.open(io.BytesIO(made(recipe, data, upright).body)) as image:
        assert not image.getexif()
    with Image.open(io.BytesIO(made(f"{recipe},metadata=keep", data, upright).body)) as image:
        kept = image.getexif()
        assert image.size == (300, 400)
        assert kept[0x8298] == "(c) somebody"
        assert kept[0x0112] == 1
        if format != "TIFF":  # Pillow keeps no sub-directories of a TIFF that it has written itself
            assert kept.get_ifd(0x8825)[1] == "N"
            assert kept.get_ifd(0x8769)[0xA002] == 300


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_metadata_is_left_out() -> None:
    rgb, alpha = photo()
    data = saved(rgb, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrubbish")
    with Image.open(io.BytesIO(made("metadata=keep", data, alpha).body)) as image:
        assert not image.getexif()


@pytest.mark.parametrize("recipe", ["png", "webp"])
def test_the_profile_is_kept_with_the_colours_it_belongs_to(recipe: str) -> None:
    rgb, alpha = photo()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cutout = made(f"{recipe},icc=keep", saved(rgb, icc_profile=icc), alpha)
    with Image.open(io.BytesIO(cutout.body)) as image:
        assert image.info["icc_profile"] == icc
    with Image.open(io.BytesIO(made(recipe, saved(rgb, icc_profile=icc), alpha).body)) as image:
        assert "icc_profile" not in image.info


def test_too_large_for_the_format() -> None:
    rgb = np.zeros((1, 16_400, 3), np.uint8)
    with pytest.raises(PermanentError, match="max-side=16383") as caught:
        made("webp=90", saved(rgb), np.full((1, 320), 255, np.uint8))
    assert caught.value.code is Code.TOO_LARGE


def test_a_background_image_that_was_not_given() -> None:
    rgb, alpha = photo()
    cutting, _ = cut(Picture(rgb, None, *alpha.shape), alpha, Recipe())
    with pytest.raises(ValueError, match="background image"):
        render(cutting, Recipe(background="wall.jpg"))


# Subjects


def test_framed_never_passes_the_longest_side() -> None:
    assert framed(Box(0, 0, 101, 50), 50, True, 150) == Box(-24, -50, 126, 100)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (np.zeros((90, 120), np.uint8), ("empty",)),
        (np.full((90, 120), 255, np.uint8), ("full",)),
        (disc(90, 120), ()),
        (disc(90, 120)[:50], ("cut_by_frame",)),
        (disc(90, 120)[:, 60:], ("cut_by_frame",)),
        (
            np.maximum(disc(90, 120), np.pad(np.tile(np.diag([0, 0, 255, 0, 0]), (17, 23)), ((3, 2), (3, 2)))),
            ("speckle",),
        ),
    ],
)
def test_suspects(alpha: npt.NDArray[np.generic], expected: tuple[str, ...]) -> None:
    assert suspects(alpha.astype(np.uint8)) == expected


def test_warming_up_leaves_nothing_to_compile() -> None:
    warm_up()
    rgb, alpha = photo(700, 900)
    low = shrunk(alpha, 7)
    low.flags.writeable = False  # as it comes from Redis
    kernels = _kernels()
    before = [len(kernel.signatures) for kernel in kernels]
    for recipe in ("png", "background=#fff", "max-side=300", "alpha", "crop,square,webp=80"):
        made(recipe, saved(rgb), low)
    assert [len(kernel.signatures) for kernel in kernels] == before


def _kernels() -> list[object]:
    from model import cutout, foreground, grid, refine, shrink

    kind = type(compiled(lambda: None))
    return [
        value
        for module in (cutout, foreground, grid, refine, shrink)
        for value in vars(module).values()
        if isinstance(value, kind)
    ]
