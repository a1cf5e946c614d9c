"""Export of the PyTorch networks: the same alpha, any batch, any sides, and a graph that TensorRT takes."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from engine_build.census import count
from model.catalogue import CONTRACT
from model.preprocess import letterbox
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from engine_build.checkpoint import load_network, parse_checkpoint, read_checkpoint, write_half  # noqa: E402
from engine_build.export import Order, export, export_model  # noqa: E402
from model.networks import NAMES, build, multiply_adds, parameters  # noqa: E402

PHOTOS = Path(__file__).parents[2] / "producer/samples/photos"
SIZES = (SizeBucket(64, 64), SizeBucket(128, 96), SizeBucket(96, 160))
STRAY = {"Shape", "Range", "Gather", "Slice", "Loop", "If", "BatchNormalization", "GlobalAveragePool", "Constant"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for each other on busy cores take many times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options)


def network(name: str, article_order: bool = False) -> torch.nn.Module:
    """Random weights whose alpha is far from flat: norms with statistics of their own, wide logits."""
    torch.manual_seed(5)
    net = build(name, article_order=article_order)
    with torch.no_grad():
        net(torch.rand(4, 3, 96, 96))  # in training mode: sets the running statistics
        net.eval()
        spread = net(torch.rand(1, 3, 96, 96)).std()
        convolutions = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
        last = [layer for layer in convolutions if layer is not net.auxiliary][-1]
        last.weight *= 3 / spread
    return net


@pytest.fixture(scope="module")
def nets() -> dict[str, torch.nn.Module]:
    return {name: network(name) for name in NAMES}


@pytest.fixture(scope="module")
def exported(nets: dict[str, torch.nn.Module]) -> dict[tuple[str, str], bytes]:
    small = nets["cvunet-lite-s"]
    models = {(name, "fp32"): export(net, "fp32") for name, net in nets.items()}
    return models | {("cvunet-lite-s", "fp16"): export(small, "fp16")}


def photos(size: SizeBucket, number: int) -> np.ndarray:
    names = ("portraits/astronaut.jpg", "animals/tawny-owl.jpg", "products/coffee-cup.jpg")[:number]
    images = []
    for name in names:
        bgr = cv2.imread(str(PHOTOS / name))
        assert bgr is not None
        images.append(letterbox(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), size)[0])
    return np.stack(images)


def alpha_by_torch(net: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    rgb = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    with torch.inference_mode():
        return torch.sigmoid(net(rgb)).numpy()[:, 0] * 255


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in NAMES), ("cvunet-lite-s", "fp16")])
def test_alpha_is_pytorchs(
    name: str, precision: str, nets: dict[str, torch.nn.Module], exported: dict[tuple[str, str], bytes]
) -> None:
    session = session_of(exported[name, precision])
    for size in SIZES:
        for number in (1, 3):
            images = photos(size, number)
            alpha = session.run(None, {"images": images})[0]
            assert alpha.dtype == np.uint8
            assert alpha.shape == images.shape[:3]
            expected = alpha_by_torch(nets[name], images)
            assert np.ptp(expected) > 100
            assert np.abs(alpha - expected).max() < (0.51 if precision == "fp32" else 1.5)  # rounding, then a level


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in NAMES), ("cvunet-lite-s", "fp16")])
def test_the_graph_is_one_that_tensorrt_takes(
    name: str, precision: str, exported: dict[tuple[str, str], bytes]
) -> None:
    graph = onnx.load_from_string(exported[name, precision]).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert not STRAY & set(kinds)
    assert [node.op_type for node in graph.node if "images" in node.input] == ["Cast"]
    tail = [node.op_type for node in graph.node[-6:]]
    assert tail == ["Sigmoid", "Mul", "Add", "Clip", "Squeeze", "Cast"]
    dims = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", "H", "W", 3]


def test_fp16_is_inside_and_fp32_at_the_ends(exported: dict[tuple[str, str], bytes]) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(exported["cvunet-lite-s", "fp16"]))
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.value_info}
    of = {kind: [kinds[n.output[0]] for n in model.graph.node if n.op_type == kind] for kind in ("Conv", "Resize")}
    assert set(of["Conv"]) == set(of["Resize"]) == {onnx.TensorProto.FLOAT16}
    half_weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert sum(int(np.prod(tensor.dims)) for tensor in half_weights) > 2_000_000
    ends = [node for node in model.graph.node[-6:-1] if node.op_type != "Squeeze"]
    assert {kinds[node.output[0]] for node in ends} == {onnx.TensorProto.FLOAT}
    assert len(exported["cvunet-lite-s", "fp16"]) < 0.55 * len(exported["cvunet-lite-s", "fp32"])


def test_batch_norms_are_folded_and_counts_agree(
    nets: dict[str, torch.nn.Module], exported: dict[tuple[str, str], bytes]
) -> None:
    for name in NAMES:
        footprint = count(exported[name, "fp32"], (SizeBucket(512, 512),))
        assert footprint.size == SizeBucket(512, 512)
        assert footprint.macs == multiply_adds(nets[name], 512, 512)
        assert abs(footprint.parameters / parameters(nets[name]) - 1) < 0.02  # norms folded, biases added


def test_the_same_weights_give_the_same_bytes_and_no_warning(nets: dict[str, torch.nn.Module]) -> None:
    net = nets["cvunet-lite-s"]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert export(net, "fp32") == export(net, "fp32")
        export(net, "fp16")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def saved(net: torch.nn.Module, path: Path, how: str) -> Path:
    weights = net.state_dict()
    if how == "safetensors":
        path = path.with_suffix(".safetensors")
        path.write_bytes(write_half(net))
        return path
    what = {
        "state_dict": weights,
        "data parallel": {f"module.{key}": value for key, value in weights.items()},
        "in a dictionary": {"epoch": 3, "state_dict": weights, "optimizer": {}},
        "averaged": {"model": {key: value * 0 for key, value in weights.items()}, "ema": weights},
        "without what training needs": {k: v for k, v in weights.items() if not k.startswith("auxiliary")},
    }[how]
    torch.save(what, path)
    return path


@pytest.mark.parametrize(
    "how",
    ["state_dict", "data parallel", "in a dictionary", "averaged", "without what training needs", "safetensors"],
)
def test_checkpoints_of_every_kind_are_read(how: str, nets: dict[str, torch.nn.Module], tmp_path: Path) -> None:
    net = nets["cvunet-lite-s"]
    loaded = load_network("cvunet-lite-s", read_checkpoint(saved(net, tmp_path / "best.pth", how)))
    images = photos(SIZES[1], 2)
    difference = np.abs(alpha_by_torch(loaded, images) - alpha_by_torch(net, images)).max()
    assert difference < (1.5 if how == "safetensors" else 1e-3)
    assert not loaded.training


def test_the_articles_order_of_layers_is_found_out() -> None:
    net = network("cvunet-lite-s", article_order=True)
    loaded = load_network("cvunet-lite-s", parse_checkpoint(write_half(net), "x"))
    images = photos(SIZES[0], 1)
    assert np.abs(alpha_by_torch(loaded, images) - alpha_by_torch(net, images)).max() < 1.5


def test_a_checkpoint_that_does_not_fit_is_told_apart_in_one_error(
    nets: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    weights = dict(nets["cvunet"].state_dict())
    first, *_, last = [key for key in weights if key.endswith("weight") and not key.startswith("auxiliary")]
    del weights[last]
    expected = list(weights[first].shape)
    weights[first] = torch.zeros(16, 3, 3, 3)
    weights["decoder.attention"] = torch.zeros(3)
    torch.save(weights, tmp_path / "article.pth")
    with pytest.raises(SetupError) as caught:
        load_network("cvunet", read_checkpoint(tmp_path / "article.pth"))
    said = str(caught.value)
    assert f"1 missing: {last}" in said
    assert "1 unknown: decoder.attention" in said
    assert f"1 of another shape: {first} is [16, 3, 3, 3], expected {expected}" in said


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("what", ["code", "no weights", "cut off", "text", "missing"])
def test_what_is_no_checkpoint_is_refused(what: str, nets: dict[str, torch.nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    if what == "code":
        torch.save({"state_dict": Evil()}, path)
    elif what == "no weights":
        torch.save({"epoch": 3}, path)
    elif what == "cut off":
        path.write_bytes(saved(nets["cvunet-lite-s"], path, "state_dict").read_bytes()[:100_000])
    elif what == "text":
        path.write_text("hello")
    with pytest.raises(SetupError, match=r"bad\.pth"):
        read_checkpoint(path)
    assert not Path("evil").exists()


def test_a_model_is_exported_into_the_store(nets: dict[str, torch.nn.Module], tmp_path: Path) -> None:
    file, home = saved(nets["cvunet-lite-s"], tmp_path / "best.pth", "state_dict"), tmp_path / "home"
    sizes = (SizeBucket(64, 64), SizeBucket(96, 64))
    order = Order("cvunet-lite-s", "fp32", file, "mine", sizes, "CC0-1.0")

    spec = export_model(order, home, lambda _: None)

    store = ModelStore(home)
    assert store.spec("mine") == spec
    assert spec.size_buckets == sizes
    assert onnx.load(store.path("mine")).graph.input[0].name == "images"
    assert store.card("mine").made["network"] == "cvunet-lite-s"
    half = export_model(Order("cvunet-lite-s", "fp16", file, "", sizes), home, lambda _: None)
    assert half.name == "cvunet-lite-s-fp16"
    assert half.weights != spec.weights


def test_what_is_packed_to_be_shipped_works_out_of_the_box(nets: dict[str, torch.nn.Module], tmp_path: Path) -> None:
    """And exported once more from the small file, the model is the same to the byte."""
    file, package = saved(nets["cvunet-lite-s"], tmp_path / "best.pth", "state_dict"), tmp_path / "package"
    order = Order("cvunet-lite-s", "fp32", file, "own-1", (SizeBucket(64, 64),), "Apache-2.0", "made here")

    spec = export_model(order, tmp_path / "home", lambda _: None, to=package)

    assert {path.name for path in package.iterdir()} == {"own-1.onnx", "own-1.json", "own-1.safetensors"}
    store = ModelStore(tmp_path / "home", package)
    assert store.spec("own-1") == spec
    assert json.loads((package / "own-1.json").read_text())["contract"] == CONTRACT
    small = package / "own-1.safetensors"
    assert small.stat().st_size < 0.55 * store.path("own-1").stat().st_size
    again = load_network("cvunet-lite-s", read_checkpoint(small))
    assert export(again, "fp32") == store.path("own-1").read_bytes()


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (Order("cvunet"), "No weights of cvunet come with"),
        (Order("cvunet", checkpoint=Path("there-is-none.pth")), "there-is-none.pth cannot be read"),
        (Order("resnet", checkpoint=Path("x.pth"), sizes=(SizeBucket(500, 512),)), "cannot run at 500x512"),
    ],
    ids=["no weights", "no file", "sides"],
)
def test_what_cannot_be_exported(order: Order, says: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=says):
        export_model(order, tmp_path / "home", lambda _: None)
    assert not (tmp_path / "home").exists()


def test_an_unknown_network_lists_the_known_ones(nets: dict[str, torch.nn.Module], tmp_path: Path) -> None:
    file = saved(nets["cvunet-lite-s"], tmp_path / "best.pth", "safetensors")
    with pytest.raises(SetupError, match="no network named") as caught:
        export_model(Order("resnet", checkpoint=file), tmp_path / "home", lambda _: None)
    assert "cvunet-lite-s" in caught.value.hint
