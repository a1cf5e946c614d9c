from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from model.networks import NAMES, build, multiply_adds, parameters  # noqa: E402
from model.networks.blocks import LightBlock  # noqa: E402
from model.networks.build import encoder_of  # noqa: E402
from model.networks.mobilenet import load_imagenet, mobilenet_v2, mobilenet_v3_large  # noqa: E402
from pipeline.errors import SetupError  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make a busy machine's tests ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96)])
def test_a_network_gives_logits_of_the_pictures_size(name: str, height: int, width: int) -> None:
    network = build(name).eval()

    with torch.inference_mode():
        logits = network(torch.rand(2, 3, height, width))

    assert logits.shape == (2, 1, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_training_also_gets_logits_at_an_eighth(name: str) -> None:
    coarse, fine = build(name).coarse_and_fine(torch.rand(2, 3, 64, 96))

    assert coarse.shape == (2, 1, 8, 12)
    assert fine.shape == (2, 1, 64, 96)


def test_sizes_are_those_the_recipe_promises() -> None:
    plain, lite, small = (build(name) for name in NAMES)

    assert 37e6 < parameters(plain) < 40e6
    assert parameters(lite) <= 12.2e6
    assert parameters(lite) <= 0.32 * parameters(plain)
    assert multiply_adds(lite) <= 0.41 * multiply_adds(plain)
    assert 2.7e6 < parameters(small) < 3.3e6
    assert multiply_adds(small) < 2.5e9


def test_multiply_adds_of_a_convolution_by_hand() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
    )

    assert multiply_adds(network, 16, 32) == 8 * 16 * (8 * 3 * 9) + 8 * 16 * (8 * 9)


def test_counting_leaves_a_network_as_it_was() -> None:
    network = build("cvunet-lite-s")
    before = {name: value.clone() for name, value in network.state_dict().items()}

    multiply_adds(network, 64, 64)

    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("encoder", "names"),
    [
        # Names as torchvision's published state_dicts have them.
        (mobilenet_v2, ("features.0.0.weight", "features.1.conv.1.weight", "features.2.conv.0.1.running_var",
                        "features.17.conv.3.bias", "features.18.1.weight")),
        (mobilenet_v3_large, ("features.0.0.weight", "features.1.block.0.0.weight", "features.4.block.2.fc1.bias",
                              "features.6.block.3.1.running_mean", "features.16.1.weight")),
    ],
)  # fmt: skip
def test_encoders_carry_torchvisions_names(encoder, names: tuple[str, ...]) -> None:
    assert set(names) <= set(encoder().state_dict())


def test_mobilenet_v3_large_is_as_large_as_published() -> None:
    """5.48 M parameters in table 3 of the paper as torchvision builds it, 2.51 M of them in the classifier."""
    assert sum(value.numel() for value in mobilenet_v3_large().parameters()) == 5_483_032 - 2_511_080


def test_mobilenet_v2_is_as_large_as_published() -> None:
    assert sum(value.numel() for value in mobilenet_v2().parameters()) == 3_504_872 - 1_281_000


def test_imagenet_weights_load_without_their_classifier_and_without_batch_counters() -> None:
    weights = {name: torch.rand_like(value.float()) for name, value in mobilenet_v2().state_dict().items()}
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    encoder = encoder_of(build("cvunet-lite-s"))
    assert encoder is not None

    load_imagenet(encoder, old | {"classifier.1.weight": torch.zeros(1000, 1280)})

    assert torch.equal(encoder.state_dict()["features.18.0.weight"], weights["features.18.0.weight"])


def test_weights_of_another_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match=r"missing .*features.1.block"):
        load_imagenet(mobilenet_v3_large(), mobilenet_v2().state_dict())


def test_the_articles_order_puts_squeeze_excitation_before_the_norm() -> None:
    def order(block: LightBlock) -> list[str]:
        return [type(layer).__name__ for layer in block.layers]

    assert order(LightBlock(8, 16)) == ["Conv2d", "Conv2d", "BatchNorm2d", "ReLU6", "SqueezeExcite"]
    assert order(LightBlock(8, 16, article_order=True)) == [
        "Conv2d", "Conv2d", "SqueezeExcite", "BatchNorm2d", "ReLU6",
    ]  # fmt: skip
    assert parameters(build("cvunet-lite", article_order=True)) == parameters(build("cvunet-lite"))


def test_a_network_normalises_inside_and_keeps_no_constants_in_its_weights() -> None:
    network = build("cvunet-lite-s")

    grey = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1).expand(1, 3, 32, 32)

    assert network.normalise(grey).abs().max() < 1e-6
    assert not [name for name in network.state_dict() if name.startswith("normalise.")]


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(SetupError, match="cvunet-lite-s"):
        build("unet-plus-plus")
