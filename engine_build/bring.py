"""Bring a network that a user trusts into the model store."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_build.census import count
from engine_build.fetch import fetch
from engine_build.network import Network, read_network
from engine_build.prove import Proof, prove, prove_batch
from engine_build.wrap import Recipe, Wrapped, fixed_sides, is_wrapped, wrap_network
from model.catalogue import CATALOGUE, ModelSpec
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

_DIGITS = 16  # of a digest, enough to tell files apart by eye


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user says of a network.

    Attributes:
        name: that it is to have.
        recipe: what it expects and gives.
        sizes: the sizes to run it at; () takes the one that the network is fixed to.
        usual_size: the size to run it at when it is fixed to none and `sizes` is empty.
        licence: of its weights.
        origin: where it comes from.
        replace: whether another model of that name may go.
    """

    name: str
    recipe: Recipe
    sizes: tuple[SizeBucket, ...] = ()
    usual_size: SizeBucket | None = None
    licence: str = "unknown"
    origin: str = ""
    replace: bool = False


def bring(file: Path, wish: Wish, home: Path, report: Callable[[str], None]) -> ModelSpec:
    """Wrap a network into the contract, prove that it still computes the same, and install it.

    To import the same file with the same options again does nothing. A file that fulfils the contract, such as one
    that `mattemill model export` wrote, is taken as it is.

    Args:
        file: an ONNX file.
        wish: name and options.
        home: MATTEMILL_HOME.
        report: takes one sentence for the user.

    Raises:
        SetupError: when the network cannot be wrapped, changes by it, or its name is taken.
    """
    store = ModelStore(home)
    store.check_name(wish.name)
    network = read_network(file)
    if wish.name in CATALOGUE:
        return _as_known(file, wish, network, home, report)
    sizes = _sizes(network, wish)
    spec = ModelSpec(wish.name, _identity(network, wish.recipe, sizes), sizes, wish.licence, wish.origin or file.name)
    if _is_there(store, spec, wish.replace):
        report(f"{wish.name} is imported and intact: {store.path(wish.name)}")
        return spec
    if is_wrapped(network):
        if wish.recipe != Recipe():
            raise SetupError(
                "The file fulfils the contract already: no option changes it.", "leave all but --size away"
            )
        model = network.model.SerializeToString(deterministic=True)
        report(f"The file fulfils the contract already; a batch differs by {prove_batch(model, sizes)} of 255 at most")
    else:
        wrapped = wrap_network(network, wish.recipe, sizes)
        for sentence in _found(wrapped, prove(wrapped, wish.recipe, sizes)):
            report(sentence)
        model = wrapped.model
    made = {"file": file.name, "sha256": network.sha256, **_options(wish.recipe)}
    path = store.install(spec, model, count(model, sizes), made)
    report(f"{wish.name} is imported ({', '.join(map(str, sizes))}; licence {wish.licence}): {path}")
    return spec


def _as_known(file: Path, wish: Wish, network: Network, home: Path, report: Callable[[str], None]) -> ModelSpec:
    """A file given under the name of a model of the catalogue must be that model, wrapped as that is wrapped."""
    spec = CATALOGUE[wish.name]
    if network.sha256 != spec.weights:
        raise SetupError(
            f"{wish.name} is the name of a known model, whose file has sha256 {spec.weights[:_DIGITS]}…; "
            f"{file.name} has {network.sha256[:_DIGITS]}….",
            "choose another name",
        )
    if wish.recipe != Recipe() or wish.sizes not in ((), spec.size_buckets):
        raise SetupError(
            f"{wish.name} is a known model, and its options are known too.",
            "leave the options away, or choose another name",
        )
    return fetch(wish.name, home, report, file)


def _sizes(network: Network, wish: Wish) -> tuple[SizeBucket, ...]:
    height, width = fixed_sides(network)
    if wish.sizes:
        return tuple(dict.fromkeys(wish.sizes))
    if height and width:
        return (SizeBucket(height, width),)
    if wish.usual_size is None:
        raise SetupError("The network takes images of any size.", "say at which to run it, such as --size 512")
    return (wish.usual_size,)


def _identity(network: Network, recipe: Recipe, sizes: tuple[SizeBucket, ...]) -> str:
    """What decides the alpha: the same file with another mean must not count as the same model in fingerprints."""
    parts = {"file": network.sha256, "sizes": [str(size) for size in sizes], **_options(recipe)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _options(recipe: Recipe) -> Mapping[str, object]:
    return {
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "output": recipe.output,
        "sigmoid": recipe.sigmoid,
    }


def _is_there(store: ModelStore, spec: ModelSpec, replace: bool) -> bool:
    """Whether the model is installed and intact.

    Raises:
        SetupError: when another one has the name and may not be replaced.
    """
    if spec.name not in store.names():
        return False
    try:
        there = store.spec(spec.name)
        store.path(spec.name)
    except SetupError:
        return False  # damaged: it is imported again
    if there == spec:
        return True
    if there.weights == spec.weights or replace:
        return False  # at most the licence or the origin is told differently
    raise SetupError(
        f"Another model is named {spec.name}: another file, or imported with other options.",
        "choose another name, or give --replace while no worker uses it",
    )


def _found(wrapped: Wrapped, proof: Proof) -> list[str]:
    freed = wrapped.freed
    sentences = []
    if freed.changed:
        sentences.append(f"Freed from its batch of 1 in {len(freed.changed)} places: {', '.join(freed.changed[:5])}")
    same = "to the bit" if proof.worst_batch == 0 else f"to {proof.worst_batch} of 255"
    sentences.append(f"Proved: a batch of {proof.batch} equals its images one by one {same}")
    sentences.append(f"Proved: the wrapped network equals the network to {proof.worst_wrap:.2f} of 255")
    return sentences
