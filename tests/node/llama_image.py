"""Builds the image of a real engine: llama.cpp's server from pip's xllamacpp, and a tiny model of random weights.

Its libraries are Debian's, and so is the `strip` that cuts the engine to a quarter: this machine needs neither.
"""

import os
import shutil
from pathlib import Path

from tests.cluster.embedded import ROOT
from tests.engines import tiny_model
from tests.node import image

IMAGE = "localhost/tailrace-llama:node"
MODEL_FILE = "/opt/llama/tiny.gguf"
PARTS = ("libgomp1", "libstdc++6", "binutils")
LOCK = "requirements/llama.txt"
FOLDER = "tests/node/llama"
SOURCES = (FOLDER, LOCK, "tests/engines/tiny_model.py", "tests/node/llama_image.py")
CONTEXT = ("Dockerfile", "server.py")


def ensure() -> Path:
    """Return the image's archive, built if these sources have never been built here."""
    return image.kept(image.cache() / "llama", image.hashed((), SOURCES), _build)


def _build(buildah: image.Buildah, layout: Path) -> None:
    context = layout.with_name("context")
    shutil.rmtree(context, ignore_errors=True)
    _prepare(context)
    buildah.build(IMAGE, None, context, {"BASE": image.BASE})
    buildah.push(IMAGE, layout, IMAGE)
    shutil.rmtree(context)


def _prepare(context: Path) -> None:
    context.mkdir()
    for name in CONTEXT:
        shutil.copy(ROOT / FOLDER / name, context)
    tiny_model.write(context / "tiny.gguf")
    parts = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PARTS)}", image.SUITE]
    image.run([*parts, str(context / "parts.tar")], os.environ | {"SOURCE_DATE_EPOCH": "0"})
    target = ("--no-compile", f"--target={context / 'site-packages'}")
    image.run([*image.pip("install"), *target, "-r", str(ROOT / LOCK)])
