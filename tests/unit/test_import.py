"""`model import`: foreign networks, made here node by node, brought into the store and run by the real engine."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_build.bring import Wish, bring
from engine_build.presets import PRESETS, preset
from engine_build.wrap import Recipe
from model.engines.onnx import OnnxEngine
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.tiny_network import WEIGHTS, tiny_network

SIZE = SizeBucket(24, 40)
HALF, ONE = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
Node = onnx.NodeProto


def network(
    nodes: Sequence[Node],
    constants: dict[str, np.ndarray] | None = None,
    *,
    given: Sequence[object] = (1, 3, SIZE.height, SIZE.width),
    gives: Sequence[object] = (1, 1, SIZE.height, SIZE.width),
    kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    ends: tuple[str, str] = ("x", "y"),
    opset: int = 17,
) -> onnx.ModelProto:
    weights = {"weights": WEIGHTS, "bias": np.zeros(1, np.float32)} | (constants or {})
    dtype = np.float16 if kinds[0] == TensorProto.FLOAT16 else np.float32
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(ends[0], kinds[0], given)],
        [helper.make_tensor_value_info(ends[1], kinds[1], gives)],
        [numpy_helper.from_array(v.astype(dtype) if v.dtype == np.float32 else v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def conv(source: str = "x", result: str = "logits") -> Node:
    return helper.make_node("Conv", [source, "weights", "bias"], [result], pads=[1, 1, 1, 1], name="conv")


def node(kind: str, inputs: str, output: str, **attributes: object) -> Node:
    return helper.make_node(kind, inputs.split(), [output], name=f"{kind}.{output}", **attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto | bytes], Path]:
    def to_file(model: onnx.ModelProto | bytes) -> Path:
        path = tmp_path / "foreign.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return to_file


def alpha_of(home: Path, name: str, images: np.ndarray) -> np.ndarray:
    """What the engine of a worker gives, the images one by one in one session's batch too."""
    store = ModelStore(home)
    path = store.path(name)
    session = onnxruntime.InferenceSession(path)
    together = session.run(None, {"images": images})[0]
    with OnnxEngine(path, store.spec(name), max_batch=8, threads=1) as engine:
        assert np.array_equal(engine.infer(images), together)
    return together


def photos(count: int, size: SizeBucket = SIZE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, size.height, size.width, 3), np.uint8)


def logits(images: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The 3x3 convolution of every network here, by NumPy: [N, H, W]."""
    planes = (images / 255 - recipe.mean) / recipe.std  # [N, H, W, 3]
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return sum(
        (padded[:, dy : dy + height, dx : dx + width] * WEIGHTS[0, :, dy, dx]).sum(-1)
        for dy in range(3)
        for dx in range(3)
    )


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


BATCH_IN_RESHAPE = [
    conv(),
    node("Reshape", "logits flat.shape", "flat"),  # [1, 960]
    node("Softmax", "flat", "unused", axis=1),
    node("Reshape", "flat picture.shape", "picture"),
    node("Sigmoid", "picture", "y"),
]
DYNAMIC = {
    "plain": network([conv(), node("Sigmoid", "logits", "y")]),
    "open batch": network(
        [conv(), node("Sigmoid", "logits", "y")],
        given=("b", 3, SIZE.height, SIZE.width),
        gives=("b", 1, SIZE.height, SIZE.width),
    ),
    "no channel in its output": network(
        [conv(), node("Sigmoid", "logits", "p"), node("Squeeze", "p one", "y")],
        {"one": ints(1)},
        gives=(1, SIZE.height, SIZE.width),
    ),
    "half precision": network(
        [conv(), node("Sigmoid", "logits", "y")], kinds=(TensorProto.FLOAT16, TensorProto.FLOAT16)
    ),
    "batch in reshape": network(
        BATCH_IN_RESHAPE, {"flat.shape": ints(1, 960), "picture.shape": ints(1, 1, SIZE.height, SIZE.width)}
    ),
    "batch in reshape with a free side": network(
        BATCH_IN_RESHAPE, {"flat.shape": ints(1, -1), "picture.shape": ints(1, 1, -1, SIZE.width)}
    ),
    "windows": network(  # rows as if they were images: [1, 1, 24, 40] -> [24, 40] -> back
        BATCH_IN_RESHAPE,
        {"flat.shape": ints(SIZE.height, SIZE.width), "picture.shape": ints(1, 1, SIZE.height, SIZE.width)},
    ),
    "batch in resize": network(
        [
            node("AveragePool", "x", "small", kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Resize", ["small", "", "", "sizes"], ["large"], name="up", mode="nearest"),
            conv("large"),
            node("Sigmoid", "logits", "y"),
        ],
        {"sizes": ints(1, 3, SIZE.height, SIZE.width)},
    ),
    "windows by way of transposing": network(
        [
            conv(),
            node("Reshape", "logits cut", "cuts"),  # [1, 3, 8, 40]
            node("Transpose", "cuts", "turned", perm=[0, 2, 1, 3]),
            node("Reshape", "turned split", "pairs"),  # [8, 2, 60]: eight windows
            node("Transpose", "pairs", "parts", perm=[1, 0, 2]),  # [2, 8, 60]: the images are in dimension 1 now
            node("Gather", "parts first", "left", axis=0),  # [8, 60]
            node("Gather", "parts second", "right", axis=0),
            node("Concat", "left right", "whole", axis=1),
            node("Reshape", "whole joined", "together"),  # [1, 8, 3, 40]
            node("Transpose", "together", "back", perm=[0, 2, 1, 3]),
            node("Reshape", "back picture", "p"),
            node("Sigmoid", "p", "y"),
        ],
        {
            "cut": ints(1, 3, 8, 40),
            "split": ints(8, 2, 60),
            "first": np.array(0),
            "second": np.array(1),
            "joined": ints(1, 8, 3, 40),
            "picture": ints(1, 1, 24, 40),
        },
    ),
    "a token for each image": network(
        [
            conv(),
            node("Concat", "logits token", "longer", axis=2),
            node("ReduceMax", "longer", "highest", axes=[2], keepdims=1),  # the token's 9, whatever the image
            node("Sub", "logits highest", "lower"),
            node("Sigmoid", "lower", "p"),
            node("Mul", "p large", "y"),
        ],
        {"token": np.full((1, 1, 1, 40), 9, np.float32), "large": np.float32(400)},
    ),
    "open batch with a 1 inside": network(
        [conv(), node("Reshape", "logits to", "p"), node("Sigmoid", "p", "y")],
        {"to": ints(1, 1, SIZE.height, SIZE.width)},
        given=("b", 3, SIZE.height, SIZE.width),
        gives=("b", 1, SIZE.height, SIZE.width),
    ),
    "out of order": network([node("Sigmoid", "logits", "y"), conv()]),
    "our names": network([conv("images"), node("Sigmoid", "logits", "alpha")], ends=("images", "alpha")),
    "subgraph": network(
        [
            conv(),
            node("Identity", "logits", "mattemill.half"),
            helper.make_node(
                "If",
                ["yes"],
                ["y"],
                then_branch=helper.make_graph(
                    [node("Sigmoid", "mattemill.half", "t")], "then", [], [helper.make_empty_tensor_value_info("t")]
                ),
                else_branch=helper.make_graph(
                    [node("Relu", "mattemill.half", "e")], "else", [], [helper.make_empty_tensor_value_info("e")]
                ),
            ),
        ],
        {"yes": np.array(True)},
    ),
}


@pytest.mark.parametrize("what", DYNAMIC)
def test_a_network_for_one_image_takes_any_batch_and_computes_the_same(
    what: str, tmp_path: Path, save: Callable[[onnx.ModelProto], Path]
) -> None:
    source = DYNAMIC[what]
    recipe = Recipe(mean=HALF, std=ONE)
    said: list[str] = []

    spec = bring(save(source), Wish("mine", recipe, licence="CC0-1.0"), tmp_path / "home", said.append)

    images = photos(4)
    alpha = alpha_of(tmp_path / "home", "mine", images)
    session = onnxruntime.InferenceSession(source.SerializeToString())
    kind = np.float16 if what == "half precision" else np.float32
    for image, got in zip(images, alpha, strict=True):
        planes = ((image / 255 - 0.5).transpose(2, 0, 1)[None]).astype(kind)
        expected = session.run(None, {session.get_inputs()[0].name: planes})[0].reshape(SIZE.height, SIZE.width)
        assert np.abs(got - expected.astype(np.float64) * 255).max() < 0.51 + 0.2 * (kind == np.float16)
    assert spec.size_buckets == (SIZE,)
    assert any("batch of 3 equals" in sentence for sentence in said)


def test_what_had_the_batch_in_a_constant_is_named(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    said: list[str] = []
    bring(save(DYNAMIC["batch in resize"]), Wish("mine", Recipe()), tmp_path / "home", said.append)
    assert any("Resize 'up'" in sentence for sentence in said)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(HALF, ONE), Recipe((0.0,) * 3, (1 / 255,) * 3)])
def test_mean_and_std_are_for_pixels_of_0_to_1(
    recipe: Recipe, tmp_path: Path, save: Callable[[onnx.ModelProto], Path]
) -> None:
    bring(save(DYNAMIC["plain"]), Wish("mine", recipe), tmp_path / "home", lambda _: None)
    images = photos(2)
    expected = sigmoid(logits(images, recipe)) * 255
    assert np.abs(alpha_of(tmp_path / "home", "mine", images) - expected).max() < 0.52


def several_outputs() -> onnx.ModelProto:
    """Logits first, their probability second, a number third."""
    model = network([conv("x", "first"), node("Sigmoid", "first", "second"), node("ReduceMean", "first", "third")])
    model.graph.output[0].name = "first"
    for name, shape in (("second", (1, 1, SIZE.height, SIZE.width)), ("third", (1, 1, 1, 1))):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


def test_an_output_is_chosen_and_a_sigmoid_added(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    file, home = save(several_outputs()), tmp_path / "home"
    bring(file, Wish("named", Recipe(output="second")), home, lambda _: None)
    bring(file, Wish("logits", Recipe(sigmoid=True)), home, lambda _: None)
    images = photos(3)
    assert np.array_equal(alpha_of(home, "named", images), alpha_of(home, "logits", images))
    graph = onnx.load(ModelStore(home).path("named")).graph
    assert [output.name for output in graph.output] == ["alpha"]
    assert not [one for one in graph.node if one.op_type == "ReduceMean"]


def test_a_network_of_any_size_runs_at_several(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    source = network([conv(), node("Sigmoid", "logits", "y")], given=("b", 3, "h", "w"), gives=("b", 1, "h", "w"))
    sizes = (SizeBucket(32, 32), SizeBucket(48, 32))
    home = tmp_path / "home"
    assert bring(save(source), Wish("mine", Recipe(), sizes), home, lambda _: None).size_buckets == sizes
    store = ModelStore(home)
    with OnnxEngine(store.path("mine"), store.spec("mine"), max_batch=2, threads=1) as engine:
        engine.warm_up()
        for size in sizes:
            images = photos(2, size)
            assert np.abs(engine.infer(images) - sigmoid(logits(images, Recipe())) * 255).max() < 0.52
    assert store.card("mine").footprint is not None


def test_the_size_is_the_networks_own_or_that_of_the_preset(
    tmp_path: Path, save: Callable[[onnx.ModelProto], Path]
) -> None:
    source = network([conv(), node("Sigmoid", "logits", "y")], given=("b", 3, "h", "w"), gives=("b", 1, "h", "w"))
    home = tmp_path / "home"
    with pytest.raises(SetupError, match="images of any size") as caught:
        bring(save(source), Wish("mine", Recipe()), home, lambda _: None)
    assert "--size" in caught.value.hint
    spec = bring(save(source), Wish("mine", Recipe(), usual_size=SizeBucket(64, 64)), home, lambda _: None)
    assert spec.size_buckets == (SizeBucket(64, 64),)


def test_importing_again_is_harmless(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    file, home, wish = save(DYNAMIC["plain"]), tmp_path / "home", Wish("mine", Recipe())
    first = bring(file, wish, home, lambda _: None)
    path = ModelStore(home).path("mine")
    stamp, said = path.stat().st_mtime_ns, list[str]()

    assert bring(file, wish, home, said.append) == first

    assert path.stat().st_mtime_ns == stamp
    assert said == [f"mine is imported and intact: {path}"]
    path.write_bytes(b"damaged")
    assert bring(file, wish, home, said.append) == first
    assert ModelStore(home).path("mine").stat().st_size > 100


def test_other_options_are_another_model(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    """The weights of a spec go into fingerprints: what gives another alpha must not pass for already right."""
    file, home = save(DYNAMIC["plain"]), tmp_path / "home"
    first = bring(file, Wish("mine", Recipe()), home, lambda _: None)
    with pytest.raises(SetupError, match="Another model is named mine") as caught:
        bring(file, Wish("mine", Recipe(HALF, ONE)), home, lambda _: None)
    assert "--replace" in caught.value.hint
    assert ModelStore(home).spec("mine") == first

    second = bring(file, Wish("mine", Recipe(HALF, ONE), replace=True), home, lambda _: None)

    assert second.weights != first.weights
    assert ModelStore(home).spec("mine") == second


def test_what_is_written_down(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    file, home = save(DYNAMIC["plain"]), tmp_path / "home"
    bring(file, Wish("mine", Recipe(), licence="MIT", origin="a friend"), home, lambda _: None)
    card = ModelStore(home).card("mine")
    assert (card.spec.licence, card.spec.origin) == ("MIT", "a friend")
    assert card.made["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card.made["mean"] == [0.485, 0.456, 0.406]
    assert card.footprint is not None
    assert card.footprint.parameters == WEIGHTS.size + 1
    assert card.footprint.macs == SIZE.height * SIZE.width * WEIGHTS.size
    assert card.footprint.bytes == ModelStore(home).path("mine").stat().st_size


def test_what_an_export_wrote_is_taken_as_it_is(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    home = tmp_path / "home"
    bring(save(DYNAMIC["plain"]), Wish("mine", Recipe()), home, lambda _: None)
    bring(ModelStore(home).path("mine"), Wish("again", Recipe()), home, lambda _: None)
    assert np.array_equal(alpha_of(home, "again", photos(3)), alpha_of(home, "mine", photos(3)))
    assert ModelStore(home).spec("again").size_buckets == (SIZE,)
    with pytest.raises(SetupError, match="no option changes it"):
        bring(ModelStore(home).path("mine"), Wish("third", Recipe(HALF, ONE)), home, lambda _: None)


def batch_lost() -> onnx.ModelProto:
    """Takes the mean over the batch: right for one image, wrong for several."""
    mean = node("ReduceMean", "logits", "mean", axes=[0], keepdims=1)
    return network([conv(), mean, node("Sub", "logits mean", "rest"), node("Sigmoid", "mean", "y")])


def batch_mixed() -> onnx.ModelProto:
    """[1, 1, 24, 40] -> rows first -> [1, 960]: the images of a batch would be interleaved."""
    turned = node("Transpose", "logits", "turned", perm=[2, 0, 1, 3])
    back = node("Reshape", "turned to", "back")
    return network([conv(), turned, back, node("Sigmoid", "back", "y")], {"to": ints(1, 1, SIZE.height, SIZE.width)})


def quantised() -> onnx.ModelProto:
    """Levels by the highest value of the whole batch, as quantising tools make them."""
    levels = helper.make_node("DynamicQuantizeLinear", ["logits"], ["levels", "step", "zero"], name="levels")
    back = node("DequantizeLinear", "levels step zero", "back")
    return network([conv(), levels, back, node("Sigmoid", "back", "y")])


def own_operator() -> onnx.ModelProto:
    model = network([conv(), helper.make_node("Magic", ["logits"], ["y"], domain="somebody")])
    model.opset_import.append(helper.make_opsetid("somebody", 1))
    return model


def external(folder: Path, *, keep: bool) -> bytes:
    path = folder / "with-files.onnx"
    copy = onnx.load_from_string(PLAIN)  # saving would take the weights out of the one that all tests share
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if not keep:
        (folder / "weights.bin").unlink()
    return path.read_bytes()


PLAIN = DYNAMIC["plain"].SerializeToString()
SIGMOID = node("Sigmoid", "logits", "y")
REFUSED: dict[str, tuple[onnx.ModelProto | bytes, Recipe, str, str]] = {
    "cut off": (PLAIN[: len(PLAIN) // 2], Recipe(), "cut off", "give the .onnx file"),
    "no onnx": (b"GIF89a, surely no network", Recipe(), "no ONNX network", "give the .onnx file"),
    "empty": (b"", Recipe(), "empty ONNX network", "give the .onnx file"),
    "pytorch": (b"PK\x03\x04archive/data.pkl", Recipe(), "PyTorch checkpoint", "model export NETWORK --checkpoint"),
    "rank": (
        network([conv(), SIGMOID], given=(3, 24, 40)),
        Recipe(),
        r"FLOAT \[3, 24, 40\], expected FLOAT \[1, 3",
        "",
    ),
    "grey": (network([conv(), SIGMOID], given=(1, 1, 24, 40)), Recipe(), r"\[1, 1, 24, 40\], expected FLOAT", ""),
    "batch of 4": (network([conv(), SIGMOID], given=(4, 3, 24, 40)), Recipe(), r"\[4, 3, 24, 40\], expected", ""),
    "bytes in": (
        network([conv(), SIGMOID], kinds=(TensorProto.UINT8, TensorProto.FLOAT)),
        Recipe(),
        r"UINT8 \[1, 3, 24, 40\], expected FLOAT",
        "",
    ),
    "doubles in": (network([conv(), SIGMOID], kinds=(TensorProto.DOUBLE, 1)), Recipe(), "DOUBLE", ""),
    "labels out": (
        network([conv(), node("Cast", "logits", "y", to=TensorProto.INT64)], kinds=(1, TensorProto.INT64)),
        Recipe(),
        "output y is INT64",
        "--output",
    ),
    "channels last": (network([conv(), SIGMOID], given=(1, 24, 40, 3)), Recipe(), "channels last", "inputs-as-nchw"),
    "two classes": (network([conv(), SIGMOID], gives=(1, 2, 24, 40)), Recipe(), r"\[1, 2, 24, 40\]", "--output"),
    "smaller": (network([conv(), SIGMOID], gives=(1, 1, 12, 20)), Recipe(), r"\[1, 1, 12, 20\]", "--output"),
    "old": (tiny_network(SIZE, opset=10), Recipe(), "opset 10, expected 11", "newer opset"),
    "no such output": (several_outputs(), Recipe(output="forth"), "no output 'forth'", "first, second, third"),
    "output of another shape": (
        several_outputs(),
        Recipe(output="third"),
        r"third is FLOAT \[1, 1, 1, 1\]",
        "--output",
    ),
    "logits as probability": (
        network([conv(), node("Mul", "logits ten", "y")], {"ten": np.float32(10)}),
        Recipe(),
        "no probability",
        "--sigmoid",
    ),
    "probability as logits": (network([conv(), SIGMOID]), Recipe(sigmoid=True), "probability already", "--no-sigmoid"),
    "no numbers": (network([conv(), node("Log", "logits", "y")]), Recipe(), "no numbers", ""),
    "batch lost": (batch_lost(), Recipe(), "ReduceMean.mean", "dynamic batch"),
    "batch mixed": (batch_mixed(), Recipe(), "batch of 3", "dynamic batch"),
    "quantised": (quantised(), Recipe(), "one range of values for the whole batch", "version of floats"),
    "own operator": (
        own_operator(),
        Recipe(),
        "ONNX Runtime cannot load",
        "",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(
    what: str, tmp_path: Path, save: Callable[[onnx.ModelProto | bytes], Path]
) -> None:
    source, recipe, says, hint = REFUSED[what]
    with pytest.raises(SetupError, match=says) as caught:
        bring(save(source), Wish("mine", recipe), tmp_path / "home", lambda _: None)
    assert hint in caught.value.hint
    assert not (tmp_path / "home").exists()


def test_a_size_that_the_network_does_not_take(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    wish = Wish("mine", Recipe(), (SizeBucket(32, 32),))
    with pytest.raises(SetupError, match=r"\[1, 3, 24, 40\], expected FLOAT \[1, 3, 32, 32\]"):
        bring(save(DYNAMIC["plain"]), wish, tmp_path / "home", lambda _: None)
    halved = [
        node("AveragePool", "x", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", "small roi scales", "large", mode="nearest"),
        node("Add", "large x", "both"),
        conv("both"),
        SIGMOID,
    ]
    scales = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    odd = network(halved, scales, given=("b", 3, "h", "w"), gives=("b", 1, "h", "w"))
    with pytest.raises(SetupError, match="31x32"):
        bring(save(odd), Wish("mine", Recipe(), (SizeBucket(31, 32),)), tmp_path / "home", lambda _: None)


def test_weights_in_another_file(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(external(tmp_path, keep=True))
    spec = bring(file, Wish("mine", Recipe()), tmp_path / "home", lambda _: None)
    images = photos(2)
    expected = sigmoid(logits(images, Recipe())) * 255
    assert np.abs(alpha_of(tmp_path / "home", "mine", images) - expected).max() < 0.52
    weights = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(weights[:-4] + b"\0\0\0\x3f")
    assert bring(file, Wish("other", Recipe()), tmp_path / "home", lambda _: None).weights != spec.weights


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_weights_that_are_missing_or_lie_elsewhere(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4096)
    external(folder, keep=False)
    model = onnx.load(folder / "with-files.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file = folder / "net.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(SetupError, match="weights are in another file") as caught:
        bring(file, Wish("mine", Recipe()), tmp_path / "home", lambda _: None)
    assert "beside" in caught.value.hint


@pytest.mark.parametrize("name", ["../up", "Größe", "", "a b"])
def test_names_that_cannot_be(name: str, tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    with pytest.raises(SetupError, match="cannot be named"):
        bring(save(DYNAMIC["plain"]), Wish(name, Recipe()), tmp_path / "home", lambda _: None)


def test_the_name_of_a_known_model_is_for_that_model(tmp_path: Path, save: Callable[[onnx.ModelProto], Path]) -> None:
    with pytest.raises(SetupError, match="u2netp is the name of a known model") as caught:
        bring(save(DYNAMIC["plain"]), Wish("u2netp", Recipe()), tmp_path / "home", lambda _: None)
    assert "another name" in caught.value.hint
    assert not (tmp_path / "home").exists()


def test_presets() -> None:
    assert {"u2net", "isnet", "birefnet", "rmbg-1.4", "rmbg-2.0", "modnet", "modelscope-cvunet"} == set(PRESETS)
    assert not PRESETS["rmbg-2.0"].commercial
    with pytest.raises(SetupError, match="no preset named 'u3net'") as caught:
        preset("u3net")
    assert "isnet" in caught.value.hint
