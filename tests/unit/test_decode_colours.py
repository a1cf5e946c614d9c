"""What decoding makes of colour profiles."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from model.codecs.decode import decode
from tests.decoding import decoded, photo, profile, reference, saved


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "TIFF"])
def test_colours_become_srgb(format: str) -> None:
    icc = profile(1.0)
    options = {"quality": 100} | (
        {"lossless": True} if format == "WebP" else {"subsampling": 0} if format == "JPEG" else {}
    )
    data = saved(Image.fromarray(photo(60, 80)), format, icc_profile=icc, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        )
    assert expected is not None
    rgb = decoded(data).rgb
    # A linear profile makes dark levels much brighter, so an error of the decoder by one level weighs more.
    assert np.abs(rgb.astype(np.int16) - np.asarray(expected)).mean() < 1
    assert rgb.mean() > photo(60, 80).mean() + 20


def test_gray_with_a_gray_profile() -> None:
    data = saved(Image.fromarray(photo(60, 80)).convert("L"), "PNG", icc_profile=profile(1.0, "GRAY"))
    rgb = decoded(data).rgb
    level = int(reference(data, "L")[30, 40])
    assert abs(int(rgb[30, 40, 0]) - 255 * (1.055 * (level / 255) ** (1 / 2.4) - 0.055)) < 3
    assert np.ptp(rgb.astype(np.int16), axis=2).max() <= 1


def test_an_srgb_profile_changes_nothing() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = photo(60, 80)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(pixels), "PNG", icc_profile=icc)).rgb, pixels)


@pytest.mark.parametrize("icc", [b"rubbish", b"", profile(1.0)[:150], profile(1.0, "GRAY"), profile(1.0, "CMYK")])
def test_a_profile_that_does_not_fit_is_ignored(icc: bytes) -> None:
    pixels = photo(60, 80)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(pixels), "PNG", icc_profile=icc)).rgb, pixels)


def test_own_colours_come_with_their_profile() -> None:
    pixels, icc = photo(60, 80), profile(1.0)
    data = saved(Image.fromarray(pixels), "PNG", icc_profile=icc)
    kept = decode(data, max_megapixels=50, own_colours=True)
    np.testing.assert_array_equal(kept.rgb, pixels)
    assert kept.icc == icc
    assert decoded(data).icc is None


def test_own_colours_that_are_not_rgb_become_srgb() -> None:
    for mode, space in (("L", "GRAY"), ("CMYK", "CMYK")):
        data = saved(Image.fromarray(photo(60, 80)).convert(mode), "JPEG", icc_profile=profile(1.0, space))
        picture = decode(data, max_megapixels=50, own_colours=True)
        assert picture.icc is None
        np.testing.assert_array_equal(picture.rgb, decoded(data).rgb)
