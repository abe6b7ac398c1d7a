"""Counts the asyncio tasks of a Python process from within, where its environment asks for it.

Python imports this by its name before the program, from a folder on PYTHONPATH; see ``bench.process.counted``.
"""

import asyncio
import gc
import os
import threading
import time
from pathlib import Path

PERIOD_SECONDS = 1.0


def count(file: Path) -> None:
    """Write the number of tasks that are under way into a file, again and again: those of all loops and threads."""
    while True:
        # Not asyncio.all_tasks(): that is for the thread of one loop, and the Kubernetes side has two.
        under_way = sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects())
        file.write_text(str(under_way))
        time.sleep(PERIOD_SECONDS)


if "BENCH_TASKS_FOLDER" in os.environ:
    counted = Path(os.environ["BENCH_TASKS_FOLDER"], str(os.getpid()))
    threading.Thread(target=count, args=(counted,), daemon=True).start()
