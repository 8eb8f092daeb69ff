"""Data-parallel training over the devices of several processes, by Keras on JAX.

    KERAS_BACKEND=jax kzoo classify PHOTOS --distribute a:1234,b:1234 --rank 0     on host a
    KERAS_BACKEND=jax kzoo classify PHOTOS --distribute a:1234,b:1234 --rank 1     on host b

Every process reads its share of every batch; gradients and batch statistics are those of the whole
batch. Batch size and learning rate are the same as on one machine. The process of rank 0 writes the
run folder, which must be on a shared disk. In a single process all functions here do nothing.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import keras
import numpy as np

from kzoo.recipes import progress

AUTO = "auto"
JOIN_SECONDS = 300  # timeout until all processes have connected
HEARTBEAT_SECONDS = 30  # timeout after which a process counts as dead, and the others exit
END_SECONDS = 10  # timeout of the shutdown
# Environment variables of Keras: https://keras.io/api/distribution/
ADDRESSES, COUNT, RANK = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


def check(distribute: str | None, rank: int | None, batch: int) -> None:
    """Raise ValueError for invalid settings, before anything is started.

    batch: images per step.
    """
    if distribute is None:
        if rank is not None:
            raise ValueError(f"rank={rank} needs distribute: HOST:PORT,HOST:PORT of all processes.")
        return
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"distribute needs JAX, and Keras runs on {backend}, where kzoo trains on one machine: "
            "set KERAS_BACKEND=jax (the trained model is the same file), or leave distribute out."
        )
    if distribute == AUTO:
        if rank is not None:
            raise ValueError("rank goes with addresses: distribute=auto finds its own.")
        return
    addresses = distribute.split(",")
    if not all(host and port.isdigit() for host, _, port in (a.rpartition(":") for a in addresses)):
        raise ValueError(
            "distribute must be auto, or HOST:PORT of every process, of rank 0 first, with commas "
            f"between. Received: {distribute!r}"
        )
    if rank is None or not 0 <= rank < len(addresses):
        raise ValueError(
            f"rank must be from 0 to {len(addresses) - 1}, another in each of the "
            f"{len(addresses)} processes. Received: {rank}"
        )
    if batch % len(addresses):
        raise ValueError(uneven(batch, len(addresses)))


def uneven(batch: int, devices: int) -> str:
    return (
        f"{devices} devices cannot share steps of {batch} images evenly. Choose a batch_size, "
        f"divided by accumulate, that is a multiple of {devices}."
    )


@contextlib.contextmanager
def joined(
    distribute: str | None, rank: int | None = None, *, batch: int | None = None
) -> Iterator[None]:
    """Connect the processes of a run for the duration of the block.

    batch: images per step, to check that devices share it evenly. If another process is lost, this
    one exits with a message: JAX cannot continue.
    """
    global team
    if distribute is None:
        yield
        return
    import jax

    where = job(distribute, rank)
    if where is not None:
        # This service would catch SIGTERM, so that the process would not end.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                **where,
                initialization_timeout=JOIN_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=END_SECONDS,
            )
        except RuntimeError as error:
            raise ConnectionError(
                f"Not all processes could connect: {first_line(error)}"
            ) from error
    team = keras.distribution.DataParallel(auto_shard_dataset=False)
    progress.show(f"Process {process()} of {processes()}, with {devices()} devices in all")
    try:
        if batch and batch % devices():
            raise ValueError(uneven(batch, devices()))
        yield
        together()
    except Exception as error:
        if processes() > 1:
            leave(error)
        raise
    finally:
        team = None
    if where is not None:
        jax.distributed.shutdown()


team: keras.distribution.DataParallel | None = None  # of the devices of all processes, once joined
Address = dict[str, Any]  # arguments of jax.distributed.initialize


def job(distribute: str, rank: int | None) -> Address | None:
    """Return the arguments of jax.distributed.initialize; None for a single process."""
    if distribute != AUTO:
        addresses = distribute.split(",")
        return located(addresses[0], len(addresses), int(rank or 0))
    if ADDRESSES in os.environ:
        addresses = os.environ[ADDRESSES].split(",")
        count = int(os.environ.get(COUNT, len(addresses)))
        return located(addresses[0], count, int(os.environ.get(RANK, 0)))
    if all(name in os.environ for name in SLURM) and int(os.environ["SLURM_NTASKS"]) > 1:
        return {}  # JAX finds them itself
    return None


def located(coordinator: str, count: int, rank: int) -> Address | None:
    if count < 2:
        return None
    return {"coordinator_address": coordinator, "num_processes": count, "process_id": rank}


def leave(error: Exception) -> NoReturn:
    """Print the error and exit at once, which the other processes notice.

    A regular exit would wait for them, and JAX would abort with a long C++ trace.
    """
    lost = any(word in str(error) for word in ("Gloo", "NCCL", "oordination"))
    if lost:
        text = (
            f"another process has ended ({first_line(error)}), so this one does. "
            "The same command resumes from the last checkpoint."
        )
    else:
        text = f"{type(error).__name__}: {first_line(error)}"
        if not isinstance(error, ValueError | OSError):
            traceback.print_exc()
    print(f"kzoo: process {process()} of {processes()}: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, cut to 300 characters."""
    return str(error).strip().partition("\n")[0][:300]


def process() -> int:
    """Return the rank of this process."""
    return team.data_shard_id if team else 0


def processes() -> int:
    return team.num_processes if team else 1


def devices() -> int:
    """Return the number of devices of all processes."""
    return team.num_model_replicas if team else 1


def first() -> bool:
    """Return whether this process has rank 0, which writes files."""
    return process() == 0


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """A block in which models are loaded and trained over all devices."""
    if team is None:
        yield
        return
    keras.utils.set_random_seed(0)  # JAX refuses new variables that are not the same everywhere
    with team.scope():
        yield


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """A block in which this process creates and saves models without the other processes."""
    outer = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(outer)


def agreed(value: int) -> int:
    """Return the value that rank 0 passed, in all processes; waits for all of them."""
    if processes() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def together() -> None:
    """Wait until all processes have called this function."""
    agreed(0)
