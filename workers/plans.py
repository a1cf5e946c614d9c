"""A GPU worker's TensorRT engine: opened where it is there, built once where it is not."""

import structlog

from engine_build.build import BuildOptions, EngineBuilder
from engine_build.capabilities import capabilities_for, check_capability
from engine_build.progress import Progress
from model.engines.base import Engine
from model.engines.cuda.gpus import Gpu, Inventory
from model.engines.libraries import Library, Runtime, load_library
from model.engines.opener import OutdatedPlanError, check_driver, find_plan, open_tensorrt, plan_keys
from model.engines.plans import PlanStore
from pipeline.settings import Settings

log = structlog.get_logger(__name__)
_TOLD = 0.1
"""Share of the building after which the log hears of it again."""


def open_or_build(runtime: Runtime, settings: Settings, gpu: Gpu, inventory: Inventory) -> Engine:
    """The engine of the settings' model on `gpu`, which CUDA sees as its only device.

    Raises:
        SetupError: when the runtime is missing or too new for the driver, or the engine can be neither built nor run.
    """
    library = load_library(runtime)
    check_driver(library, inventory)
    if not _is_there(settings, library, gpu):
        build_once(settings, library, gpu, inventory)
    engine = open_tensorrt(settings.model, settings.home, library, gpu, settings.max_batch)
    if engine.max_batch < settings.max_batch:
        log.warning("batch_limited_by_engine", asked=settings.max_batch, largest=engine.max_batch)
    return engine


def build_once(settings: Settings, library: Library, gpu: Gpu, inventory: Inventory) -> None:
    """Build the engine unless another process of this machine does so first; both wait for the same lock.

    Raises:
        SetupError: when it cannot be built.
    """
    key = plan_keys(settings.model, library, gpu)[0]
    told = 0.0

    def tell(phase: str, share: float) -> None:
        nonlocal told
        if share >= told:
            told = share - share % _TOLD + _TOLD
            log.info("building_engine", engine=key.stem, model=settings.model, percent=round(100 * share), phase=phase)

    with PlanStore(settings.home).lock(key):
        if _is_there(settings, library, gpu):
            return
        log.info("engine_missing", engine=key.stem, model=settings.model, hint=key.command)
        builder = EngineBuilder(settings.home, library, Inventory(inventory.driver, inventory.cuda, (gpu,)))
        built = builder.build(settings.model, options_for(settings, gpu, library), Progress(tell))
        log.info("engine_built", engine=str(built.path), seconds=built.sidecar.seconds, parity=built.sidecar.parity)


def _is_there(settings: Settings, library: Library, gpu: Gpu) -> bool:
    """Whether an engine can be opened; one of a model or GPU that was here before counts as none."""
    try:
        return find_plan(settings.model, settings.home, library, gpu) is not None
    except OutdatedPlanError as error:
        log.info("engine_outdated", reason=str(error))
        return False


def options_for(settings: Settings, gpu: Gpu, library: Library) -> BuildOptions:
    """What the builder is told for this worker: batches up to its own, and its GPU among the others.

    Raises:
        SetupError: when TensorRT for RTX knows nothing of this GPU.
    """
    largest = settings.max_batch
    check_capability(library, gpu)
    return BuildOptions(batches=(1, max(largest // 2, 1), largest), compute_capabilities=capabilities_for(gpu))
