"""What an engine file is, and whether it runs on this machine, without running it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.engines.cuda.gpus import Inventory, list_gpus
from model.engines.libraries import Library, Runtime, load_library
from model.engines.opener import check_driver, check_plan
from model.engines.plans import Plan, read_plan
from model.store import ModelStore
from pipeline.errors import SetupError


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine file runs on one GPU; `reason` says why not, or what keeps it from being known."""

    where: str
    fits: bool
    reason: str


def inspect(path: Path) -> Plan:
    """Read an engine file and compare it with its sidecar.

    Raises:
        SetupError: when it is missing, damaged or another's.
    """
    return read_plan(path)


def verdicts(
    plan: Plan,
    home: Path,
    inventory: Callable[[], Inventory] = list_gpus,
    load: Callable[[Runtime], Library] = load_library,
) -> list[Verdict]:
    """One for each GPU of this machine; one for the machine where there is none, or the runtime is missing.

    Args:
        plan: from `inspect`.
        home: MATTEMILL_HOME, with the model that it was built from.
        inventory: asks for the GPUs.
        load: loads the runtime.
    """
    side = plan.sidecar
    try:
        library, known = load(Runtime(side.runtime)), inventory()
        check_driver(library, known)
    except SetupError as error:
        return [Verdict("this machine", False, str(error))]
    found = []
    for gpu in known.gpus:
        where = f"GPU {gpu.index} {gpu.name} ({gpu.uuid})"
        try:
            check_plan(
                plan,
                library,
                gpu,
                ModelStore(home).card(side.model).model_sha256,
                f"mattemill engine build {side.model} --runtime {side.runtime}",
            )
            found.append(Verdict(where, True, ""))
        except SetupError as error:
            found.append(Verdict(where, False, str(error)))
    return found or [Verdict("this machine", False, "The NVIDIA driver lists no GPU.")]
