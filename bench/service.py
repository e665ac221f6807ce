"""How quick the service answers while it works, and how workers add up.

    python bench/service.py [--clients 500] [--jobs 10000] [--seconds 20]     # latency, 1 and 2 workers, shared passes

Latency: so many clients ask for a video, or every tenth of them for the feed, once a second each, on kept-alive
connections, of a server whose database holds so many videos and whose worker makes one. (What is asked for is finished;
who waits for a video asks as often as `openai-poll-after-ms` says, which is once a second or less for all but the next
few.) Beside the milliseconds that clients waited, which are the machine's as much as ours, stands what an answer cost
the server's processor (on Linux, where threads that sample are nicer than those that answer).

Workers: processes of their own on one PostgreSQL with a stand-in for a model that takes a fixed time for each video, so
that what is measured is the queue and not how two processes share two cores. Without PostgreSQL, latency is measured on
SQLite, and workers are not.

Shared passes: one such worker that makes SLOTS videos at a time, ordered by several accounts, each by itself and in
passes of several. The stand-in is one device, which takes one pass at a time and as long for a pass of several as of
one. So what is measured is how full the queue makes passes: at best, SLOTS times the videos. (A GPU gains less where
one video keeps it busy, and a CPU nothing: there a pass is of one video anyway.)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sqlalchemy as sa
from common import show_table, write_results

from yozora.clip import Recipe
from yozora.create.canvas import Canvas
from yozora.create.events import Chunk, Progress
from yozora.create.generator import read_native
from yozora.create.settings import Settings
from yozora.serve import jobs
from yozora.serve.accounts import create_account
from yozora.serve.context import Service, open_service
from yozora.serve.metrics import PASS_VIDEOS
from yozora.serve.orders import Order
from yozora.serve.pool import Models
from yozora.serve.settings import read_settings
from yozora.serve.tables import COMPLETED, UNFINISHED, Job, new_id

# the tests' own ways to start a PostgreSQL, and the commands as processes
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "service"))
import postgres
import processes

STEPS, STEP_SECONDS = 10, 0.1
SLOTS, ACCOUNTS = 4, 3
MOST_MS = 100.0
LEAST_TIMES = 1.9
USUAL = {"YOZORA_POLL_SECONDS": "0.2", "YOZORA_HEARTBEAT_SECONDS": "2", "YOZORA_DEAD_SECONDS": "15"}  # not as in tests


DEVICE = threading.Lock()


class FixedCost(Models):
    """In the place of models: a pass takes STEPS pauses, one at a time, and what it makes shows black."""

    @contextlib.contextmanager
    def using(self, name: str | None, still: Callable[[], None] | None = None) -> Iterator[Any]:
        native = read_native(name or "mini")
        yield SimpleNamespace(
            native=native,
            settings=lambda **_: Settings(STEPS, 1.0, "euler"),
            recipes=lambda canvas, seeds, _: [Recipe(canvas.prompt, seed=seed) for seed in seeds],
            stream=_paused,
        )


def _paused(canvases: Sequence[Canvas], seeds: Sequence[int], **_: Any) -> Iterator[Progress | Chunk]:
    canvas = canvases[0]
    for step in range(1, STEPS + 1):
        with DEVICE:
            time.sleep(STEP_SECONDS)
        yield Progress("sample", step, STEPS, step * STEP_SECONDS)
    for row in range(len(seeds)):
        yield Chunk(row, np.zeros((canvas.shown, canvas.height, canvas.width, 3), np.uint8))


def fill(service: Service, count: int) -> list[str]:
    """Puts so many finished videos into the database, all of them public."""
    now = time.time()
    rows = [
        {
            "id": new_id("video"), "account_id": service.local.id, "group_id": "group_bench", "way": "generate",
            "order": Order(prompt=f"ball number {number}").model_dump(mode="json"), "prompt": f"ball number {number}",
            "model": "mini", "seconds": 2.0, "width": 128, "height": 128, "status": COMPLETED, "stage": "",
            "progress": 100, "lane": "standard", "priority": 1000, "admitted": True, "created_at": now - number,
            "finished_at": now - number, "attempt": 1, "files": {}, "public": True, "featured": False,
        }
        for number in range(count)
    ]  # fmt: skip
    with service.database.writing() as session:
        session.bulk_insert_mappings(Job.__mapper__, rows)
    return [row["id"] for row in rows]


async def poll(host: str, port: int, paths: list[str], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every answer, by kind of path: each path is asked for once a second by a client of its own."""
    took: dict[str, list[float]] = {"video": [], "feed": []}
    end = time.perf_counter() + seconds

    async def client(number: int, path: str) -> None:
        await asyncio.sleep(number / len(paths))
        reader, writer = await asyncio.open_connection(host, port)
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        while (begun := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            assert head.startswith(b"HTTP/1.1 200"), head
            took["feed" if "/feeds/" in path else "video"].append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(max(0.0, begun + 1 - time.perf_counter()))
        writer.close()

    await asyncio.gather(*(client(number, path) for number, path in enumerate(paths)))
    return took


def answering_seconds(pid: int) -> float:
    """What the threads of a process that answer have computed: all but those that are nicer than its first one, which
    sample. NaN where that cannot be said."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.is_dir():
        return float("nan")
    known = {}
    for task in tasks.iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            known[int(task.name)] = int(fields[16]), int(fields[11]) + int(fields[12])  # proc(5): nice, utime, stime
    return sum(spent for nice, spent in known.values() if nice == known[pid][0]) / os.sysconf("SC_CLK_TCK")


def latency(url: str | None, data: Path, clients: int, count: int, seconds: float) -> dict[str, Any]:
    """The percentiles of both kinds of answers while a video is made."""
    settings = read_settings(data=data, database_url=url)
    service = open_service(settings)
    ids = fill(service, count)
    arguments = ["--port", "0", "--data", str(data), *(["--database-url", url] if url else [])]
    with processes.running("serve", *arguments, log=data / "log.txt", more=USUAL) as server:
        host, _, port = processes.address(server).removeprefix("http://").rpartition(":")
        busy = jobs.create(service, service.local, Order(prompt="a red ball", seconds=60, steps=1000))[0].id
        paths = ["/api/feeds/recent" if n % 10 == 9 else f"/v1/videos/{ids[n * 7 % count]}" for n in range(clients)]
        _wait_for_sampling(service, busy)
        pid, begun = server.process.pid, time.perf_counter()
        before, others = answering_seconds(pid), os.getloadavg()[0]
        took = asyncio.run(poll(host, int(port), paths, seconds))
        spent, lasted = answering_seconds(pid) - before, time.perf_counter() - begun
        with service.database.reading() as session:
            made = jobs.find(session, service.local, busy)
            assert made.status in UNFINISHED and made.progress >= 0, "the video was finished before the measure"
        jobs.cancel(service, service.local, busy)
    service.close()
    answers = sum(map(len, took.values()))
    told = {
        kind: {"answers": len(times)} | {f"p{p}": round(float(np.percentile(times, p)), 2) for p in (50, 95, 99)}
        for kind, times in took.items()
    }
    rates = {"asked_a_second": clients, "answered_a_second": round(answers / lasted, 1)}
    return told | {"load": rates | {"cpu_ms_an_answer": round(1000 * spent / answers, 3), "load_before": others}}


def _wait_for_sampling(service: Service, name: str) -> None:
    """The model is loaded, and the measure begins when it works."""
    while True:
        with service.database.reading() as session:
            if jobs.find(session, service.local, name).stage == "generate":
                return
        time.sleep(0.1)


def throughput(url: str, data: Path, workers: int, count: int, slots: int = 1, batch: int = 1) -> tuple[float, float]:
    """Videos a second that so many workers finish, from the first to the last, and videos a pass; each makes `slots` at
    a time, in passes of up to `batch`."""
    settings = read_settings(data=data, database_url=url, poll_seconds=0.05)
    service = open_service(settings)
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(workers):
            log = stack.enter_context((data / f"worker-{number}.txt").open("wb"))
            command = [sys.executable, __file__, "--work", url, str(data)]
            at_once = os.environ | {"YOZORA_SLOTS": str(slots), "YOZORA_BATCH": str(batch)}
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=at_once))
            stack.callback(started[-1].wait)
            stack.callback(started[-1].terminate)
        while any("works" not in (data / f"worker-{number}.txt").read_text() for number in range(workers)):
            assert all(process.poll() is None for process in started), "a worker ended: see its log"
            time.sleep(0.1)
        names = [f"{number}@example.org" for number in range(ACCOUNTS)]
        users = [create_account(service.database, name, None, 1980, plan="pro") for name in names]
        begun = time.perf_counter()
        for number in range(count):
            jobs.create(service, users[number % ACCOUNTS], Order(prompt="a red ball", seconds=0.1))
        while True:
            with service.database.reading() as session:
                left = session.scalar(sa.select(sa.func.count()).where(Job.status != COMPLETED))
            if not left:
                break
            time.sleep(0.05)
        rate = count / (time.perf_counter() - begun)
    service.close()
    told = [(data / f"worker-{number}.txt").read_text() for number in range(workers)]
    passes = sum(float(match[1]) for each in told for match in re.finditer(r"passes: (\S+)", each))
    return rate, count / passes


def work(url: str, data: Path) -> None:
    """One of the measured workers, until it is told to end."""
    from yozora.serve.worker import Worker

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    service = open_service(read_settings(data=data, database_url=url, poll_seconds=0.05))
    worker = Worker(service, FixedCost("cpu"))
    worker.start()
    print("works", flush=True)
    ended.wait()
    worker.stop()
    passes = next(each for metric in PASS_VIDEOS.collect() for each in metric.samples if each.name.endswith("_count"))
    print(f"passes: {passes.value}", flush=True)
    service.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--videos", type=int, default=60, help="that the workers make")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in good order: the database goes, too
    results: dict[str, Any] = {"clients": options.clients, "jobs": options.jobs}
    binaries = postgres.find_binaries()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.running(binaries)) if binaries else None
        urls: dict[str, str | None] = {"SQLite": None} | ({"PostgreSQL": server.database("one")} if server else {})
        rows = []
        for name, url in urls.items():
            data = Path(folder) / name
            data.mkdir()
            results[name] = latency(url, data, options.clients, options.jobs, options.seconds)
            load = results[name]["load"]
            for kind in ("video", "feed"):
                said = results[name][kind]
                shown = [f"{said[key]}" for key in ("answers", "p50", "p95", "p99")]
                rows.append([f"{name}, {kind}", *shown, f"{load['answered_a_second']}", f"{load['cpu_ms_an_answer']}"])
        title = (
            f"Answers in ms; {options.clients} clients, {options.jobs} videos, one being made (p99 below {MOST_MS:g})"
        )
        show_table(title, ["", "answers", "p50", "p95", "p99", "a second", "CPU each"], rows)
        if server is not None:
            rates = {}
            for count in (1, 2):
                data = Path(folder) / f"workers-{count}"
                data.mkdir()
                rates[count], _ = throughput(server.database(f"workers{count}"), data, count, options.videos)
            results["videos_a_second"], results["times"] = rates, rates[2] / rates[1]
            shown = [[f"{count}", f"{rate:.3f}", f"{rate / rates[1]:.2f}"] for count, rate in rates.items()]
            show_table(f"Workers, fixed cost (2 are {LEAST_TIMES} times 1)", ["workers", "videos/s", "times"], shown)
            passes = {}
            for most in (1, SLOTS):
                data = Path(folder) / f"passes-{most}"
                data.mkdir()
                passes[most] = throughput(server.database(f"passes{most}"), data, 1, options.videos, SLOTS, most)
            results["videos_a_second_and_a_pass"] = passes
            shown = [
                [f"{most}", f"{each:.2f}", f"{rate:.3f}", f"{rate / passes[1][0]:.2f}"]
                for most, (rate, each) in passes.items()
            ]
            title = f"A worker that makes {SLOTS} at a time, of {ACCOUNTS} accounts, fixed cost a pass"
            show_table(title, ["a pass, at most", "it was", "videos/s", "times"], shown)
    write_results("service", results)
    slow = [
        f"{name}, {kind}: p99 {results[name][kind]['p99']} ms"
        for name in urls
        for kind in ("video", "feed")
        if not results[name][kind]["p99"] < MOST_MS
    ]
    if results.get("times", 0.0) < LEAST_TIMES:
        slow.append(f"2 workers {results['times']:.2f} times 1" if server else "workers, for want of PostgreSQL")
    sys.exit(f"missed: {'; '.join(slow)}" if slow else 0)


if __name__ == "__main__":
    main()
