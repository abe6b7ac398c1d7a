"""llama.cpp's own server, by xllamacpp: has the flags of `llama-server` that the sample uses, and ends on SIGTERM."""

import argparse
import os
import signal

import xllamacpp


def main() -> None:
    """Serve until SIGTERM, which cuts what still streams: waiting for it is the gate's part."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = xllamacpp.Server(wanted(flags()))
    print(f"listens on {server.listening_address}", flush=True)
    while True:
        signal.pause()


def flags() -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    for name in ("port", "ctx-size", "parallel", "n-gpu-layers", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--metrics", action="store_true")
    return parser.parse_args()


def wanted(asked: argparse.Namespace) -> xllamacpp.CommonParams:
    """Return what llama.cpp makes of these flags."""
    params = xllamacpp.CommonParams()
    params.model.path = asked.model
    params.model_alias = {asked.alias}
    params.hostnames = [asked.host]
    params.port = asked.port
    params.n_ctx = asked.ctx_size
    params.n_parallel = asked.parallel
    params.n_gpu_layers = asked.n_gpu_layers
    params.cpuparams.n_threads = asked.threads
    params.endpoint_metrics = asked.metrics
    return params


if __name__ == "__main__":
    main()
