import numpy as np
import pytest

from model.codecs.alpha import AlphaError, PackedAlpha, pack_alpha, unpack_alpha


def test_an_alpha_survives_with_what_is_known_of_it() -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (37, 53), np.uint8)
    back = unpack_alpha(pack_alpha(PackedAlpha(alpha, {"fetch": 1.5}, "fake")))
    assert np.array_equal(back.alpha, alpha)
    assert back.milliseconds == {"fetch": 1.5}
    assert back.engine == "fake"


def test_a_smooth_alpha_is_small() -> None:
    alpha = np.zeros((1024, 1024), np.uint8)
    alpha[200:800, 300:700] = 255
    assert len(pack_alpha(PackedAlpha(alpha))) < 31_000


@pytest.mark.parametrize("cut", [0, 5, 12, 60])
def test_a_damaged_alpha_is_an_error_and_never_a_picture(cut: int) -> None:
    data = pack_alpha(PackedAlpha(np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)))
    with pytest.raises(AlphaError):
        unpack_alpha(data[:cut])
    with pytest.raises(AlphaError):
        unpack_alpha(data[:-100] + bytes(100))
    with pytest.raises(AlphaError):
        unpack_alpha(b"\x09" + data[1:])
