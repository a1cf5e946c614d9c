"""Is this ONNX file one that an engine can be built from?"""

import onnx

from pipeline.errors import SetupError
from pipeline.ids import SizeBucket


def check_contract(data: bytes, size_buckets: tuple[SizeBucket, ...], name: str) -> None:
    """Refuse what does not take `images`, uint8 [N, H, W, 3], and give `alpha`, uint8 [N, H, W].

    Args:
        data: the ONNX file.
        size_buckets: what the model runs at; a network of fixed sides takes no other.
        name: the model's, for the hint.

    Raises:
        SetupError: says what was expected and what came.
    """
    hint = f"mattemill model fetch {name}"
    try:
        graph = onnx.load_from_string(data).graph
    except Exception as error:  # protobuf's DecodeError, and what onnx makes of a foreign file
        raise SetupError(f"The model {name} is no ONNX network, or it is cut off.", hint) from error
    weights = {tensor.name for tensor in graph.initializer}
    ends = [*(entry for entry in graph.input if entry.name not in weights), *graph.output]
    got = [_described(entry) for entry in ends]
    if got != ["images UINT8 of 4 sides", "alpha UINT8 of 3 sides"]:
        raise SetupError(
            f"The model {name} does not fulfil the contract: it has {', '.join(got) or 'no ends'}, "
            "expected images UINT8 of 4 sides, alpha UINT8 of 3 sides.",
            hint,
        )
    dims = ends[0].type.tensor_type.shape.dim
    if dims[0].HasField("dim_value"):
        raise SetupError(f"The model {name} takes {dims[0].dim_value} images at a time, expected any number.", hint)
    for size_bucket in size_buckets:
        sides = (size_bucket.height, size_bucket.width)
        fixed = [dim.dim_value for dim in dims[1:3]]  # 0: open
        if any(side and side != wanted for side, wanted in zip(fixed, sides, strict=True)):
            raise SetupError(
                f"The model {name} takes images of {fixed[0]}x{fixed[1]} only, but is listed with {size_bucket}.", hint
            )


def _described(entry: onnx.ValueInfoProto) -> str:
    tensor = entry.type.tensor_type
    return f"{entry.name} {onnx.TensorProto.DataType.Name(tensor.elem_type)} of {len(tensor.shape.dim)} sides"
