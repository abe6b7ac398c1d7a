"""The real llama.cpp server on a tiny model, as a process: prints its address, and ends with its input.

Run: python llama_server.py FOLDER SLOTS [--no-metrics] [--no-slots]
"""

import sys
from pathlib import Path

import xllamacpp
from tests.engines.tiny_model import write

CONTEXT_OF_A_SLOT = 2048


def main(folder: str, slots: str, *switches: str) -> None:
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(write(Path(folder) / "tiny.gguf"))
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = 0
    wanted.n_parallel = int(slots)
    wanted.n_ctx = CONTEXT_OF_A_SLOT * int(slots)
    wanted.endpoint_metrics = "--no-metrics" not in switches
    wanted.endpoint_slots = "--no-slots" not in switches
    wanted.warmup = False
    wanted.cpuparams.n_threads = 1
    server = xllamacpp.Server(wanted)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
