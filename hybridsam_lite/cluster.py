"""Jobs on a Dask cluster: what `hybridsam sweep --dask tcp://HOST:PORT` uses in place of processes on this machine.

Workers only compute; this process alone writes records. A job whose worker dies is run again elsewhere. On a folder
that the worker shares with this process it goes on from the checkpoint; without one it starts from its beginning,
in a temporary folder.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridsam_lite.sweep import Job, Row

__all__ = ["PATIENCE", "check_address", "workers"]

PATIENCE = 20.0  # seconds to wait for a scheduler, and for its first worker
_turn = threading.Lock()  # in a worker with several threads: `fit` wants the process for itself


def check_address(address: str) -> None:
    """Refuse, before anything is built, an address that cannot be one, or a Dask that is not installed.

    Raises:
        ValueError: for an address that is not of the form tcp://HOST:PORT.
        ModuleNotFoundError: without `dask.distributed`.

    >>> check_address("localhost")
    Traceback (most recent call last):
    ValueError: --dask 'localhost' is no scheduler's address; expected tcp://HOST:PORT, as `dask scheduler` prints it
    """
    protocol, _, place = address.partition("://")
    if protocol not in ("tcp", "tls", "ws", "wss") or not place.rpartition(":")[2].isdigit():
        raise ValueError(
            f"--dask {address!r} is no scheduler's address; expected tcp://HOST:PORT, as `dask scheduler` prints it"
        )
    _distributed()


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'a sweep on a cluster needs Dask, here and on the workers: pip install "hybridsam-lite[cluster]"'
        ) from error
    return distributed


@contextmanager
def workers(address: str, folder: Path, device: str) -> Iterator[Callable[[Job], Future[list[Row]]]]:
    """A function that hands a job to the cluster; whatever still runs on leaving is cancelled.

    Args:
        address: of the scheduler, tcp://HOST:PORT.
        folder: of the checkpoints.
        device: as in `fit`.

    Raises:
        ConnectionError: nobody answers, there is no worker, or the scheduler is lost on the way.
        OSError: one job has taken too many workers with it.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no Dask scheduler answered at {address} within {PATIENCE:g} s; start one with `dask scheduler`, and "
            f"workers with `dask worker {address} --nthreads 1`"
        ) from error
    with client:
        _check_workers(client, address)
        pool = client.get_executor(pure=False)
        try:
            yield lambda job: pool.submit(work, job, folder.resolve(), device)
        except distributed.KilledWorker as error:
            raise OSError(
                f"a job's workers died each time it was tried: out of memory, perhaps ({error.task}); what was done "
                "is kept, repeat the command to go on"
            ) from error
        except (CancelledError, distributed.CommClosedError) as error:
            raise ConnectionError(
                f"the Dask scheduler at {address} was lost; what was done is kept, repeat the command to go on"
            ) from error
        finally:
            pool.shutdown(wait=False)


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise ConnectionError(
            f"the Dask scheduler at {address} has no worker, {PATIENCE:g} s after it was asked; start some with "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    try:
        client.run(_import_library)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"a Dask worker lacks {error.name}; install this library on all workers") from error


def _import_library() -> None:
    """In a worker."""
    import hybridsam_lite.sweep  # noqa: F401


def work(job: Job, folder: Path, device: str) -> list[Row]:
    """In a worker: run a job, in `folder` if it is there and nobody is at this job in it."""
    with _turn:
        if folder.is_dir():
            try:
                return job.run(folder, device)
            except BlockingIOError:  # a worker that was given up is still at it
                pass
        with tempfile.TemporaryDirectory() as own:
            return job.run(Path(own), device)
