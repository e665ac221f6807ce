"""The durable workflow of a video: STEPS one after another, each recorded when it is done.

After a crash DBOS runs the function again on another worker and gives the recorded verdicts of the steps that were
done. What comes next depends on these alone, never on what this machine happens to have: a step whose input was left on
a lost machine says so in its verdict, which is recorded as well.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable

from dbos import DBOS

from yozora.errors import YozoraError
from yozora.serve.context import Service
from yozora.serve.errors import ApiError
from yozora.serve.metrics import STAGE_SECONDS
from yozora.serve.pool import Models
from yozora.serve.runs import Run, Stopped, begin
from yozora.serve.steps import AGAIN, NEXT, STEPS, Step, Verdict
from yozora.serve.storage import StorageError
from yozora.serve.tables import RUNNING
from yozora.serve.tracing import step_span

__all__ = ["make_video"]

STOP, FAIL = "stop", "fail"
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before a step is tried again that found no room or no storage
_log = logging.getLogger(__name__)


def make_video(service: Service, models: Models, worker: str, stopping: Callable[[], bool], job_id: str) -> None:
    """Makes one video; must be called in a DBOS workflow."""
    run = begin(service, job_id, worker, stopping)
    if run is None:
        return
    place, last = 0, len(STEPS) - 1
    try:
        while place <= last:
            step = STEPS[place]
            if step.recorded:
                verdict = DBOS.run_step({"name": step.name}, perform, run, models, step)
            else:
                verdict = perform(run, models, step)
                if verdict[0] == FAIL:  # which another run might not: what follows must not depend on it
                    verdict = NEXT
            if verdict[0] == STOP or (verdict[0] == FAIL and place == last):
                break  # the video is what it is, and a sweep tells those who were not told
            if verdict[0] == FAIL:
                DBOS.run_step({"name": FAIL}, lambda said=verdict: run.fail(said[1], said[2]))
                place = last  # those who asked are told of failures, too
            elif verdict[0] == AGAIN:
                place = next(number for number, each in enumerate(STEPS) if each.name == verdict[1])
            else:
                place += 1
    finally:
        run.clean()


def perform(run: Run, models: Models, step: Step) -> Verdict:
    """One step, and what comes of it: its own verdict, or what its failure means. A full disk and a storage that does
    not answer may pass, so it is tried a few times."""
    state = run.state()
    if state == "":
        return (STOP,)
    if state != RUNNING and step is not STEPS[-1]:
        return ("next",)
    since = time.monotonic()
    about = {"job_id": run.job_id, "attempt": run.attempt, "step": step.name}
    try:
        for pause in (*PAUSES, None):
            try:
                with step_span(step.name, run.job_id, run.attempt):
                    return step.act(run, models, step)
            except Exception as error:
                if pause is None or not may_pass(error):
                    raise
                _log.warning("a step found no room or no storage", extra=about | {"reason": str(error)})
                time.sleep(pause)
    except Stopped:
        return (STOP,)
    except StorageError as error:
        _log.error("files could not be kept", extra=about | {"reason": str(error)})
        return (FAIL, "storage_unavailable", "the video could not be stored")
    except ApiError as error:
        return (FAIL, error.code or "invalid_request", str(error))
    except YozoraError as error:
        _log.info("a video cannot be made", extra=about | {"reason": str(error)})
        if may_pass(error):
            return (FAIL, "storage_unavailable", "the video could not be written: the disk is full")
        return (FAIL, "invalid_request", _without_paths(str(error), run))
    except MemoryError:
        return (FAIL, "out_of_memory", "there is not enough memory for this video: ask for less of it")
    except Exception as error:
        if may_pass(error):
            return (FAIL, "storage_unavailable", "the video could not be written: the disk is full")
        _log.exception("a step failed", extra=about)
        return (FAIL, "server_error", "something went wrong on our side; the log says what")
    finally:
        spent = time.monotonic() - since
        run.timings[step.name] = run.timings.get(step.name, 0.0) + spent
        STAGE_SECONDS.labels(step.name).observe(spent)
    raise AssertionError("not reached")


def may_pass(error: BaseException | None) -> bool:
    """Whether the same may succeed a little later: no room on a disk, or no answer from the storage."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        if full or isinstance(error, StorageError):
            return True
        error = error.__cause__
    return False


def _without_paths(message: str, run: Run) -> str:
    """The message with ids where it names files in scratch."""
    return message.replace(f"{run.scratch}/", "").replace(str(run.scratch), "scratch")
