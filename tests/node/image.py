"""Builds the image of the Dockerfile without a registry: the base by mmdebstrap, the packages by pip, all by buildah.

The archive is kept in the user's cache, named by a hash of all that decides it. It holds two images: Tailrace, under
two names, and the one that a pod's sandbox runs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.cluster import tools
from tests.cluster.embedded import ROOT

IMAGE = "localhost/tailrace:node"
SANDBOX = "localhost/tailrace-sandbox:node"
OTHER = "localhost/tailrace:other"
"""The same image under a second name, for rollouts that change it."""
SUITE = "bookworm"
PYTHON = "3.11"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
PLATFORMS = ("manylinux_2_17", "manylinux_2_28", "manylinux_2_34", "manylinux1", "manylinux2014")
BASE_KEY = hashlib.sha256("\n".join((SUITE, *PACKAGES, *LEFT_OUT)).encode()).hexdigest()[:8]
BASE = f"localhost/tailrace-base:{BASE_KEY}"
"""One for each way to make it. Delete the cache's folder `images` for Debian's newer packages."""
SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements", "operator/tailrace")
PROGRAMS = ("buildah", "mmdebstrap", "unshare")
SANDBOX_FILE = f'FROM {BASE}\nUSER 65532:65532\nENTRYPOINT ["/usr/bin/sleep", "infinity"]\n'
KEPT_IMAGES = 200
"""Layers in buildah's cache, before it is emptied."""


class ImageError(Exception):
    """The image cannot be built; the message says why."""


def ensure() -> Path:
    """Return the archive of both images, built if these sources have never been built here."""
    return kept(cache(), key(), _build)


def kept(folder: Path, name: str, build: Callable[["Buildah", Path], None]) -> Path:
    """Return the archive of this name, the only one that its folder keeps; `build` fills the layout of a new one."""
    with tools.locked(cache() / "lock", "another process is building an image"):
        archive = folder / f"{name}.tar"
        if not archive.exists():
            folder.mkdir(exist_ok=True)
            for old in folder.glob("*.tar"):
                old.unlink()
            layout = folder / "layout"
            shutil.rmtree(layout, ignore_errors=True)
            build(with_base(cache()), layout)
            _pack(layout, archive)
    return archive


def cache() -> Path:
    """Return the folder of everything that is kept between builds."""
    return tools.cache_root().parent / "images"


def key() -> str:
    """Hash all that decides what a build gives, but for Debian's packages, which may be newer at the next build."""
    return hashed((SANDBOX_FILE, OTHER), SOURCES)


def hashed(texts: Iterable[str], sources: Iterable[str]) -> str:
    """Hash the base, these texts, and the files and folders of these names in the repository."""
    parts = [BASE, PYTHON, *PLATFORMS, *texts]
    parts += [f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in _files(sources)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def _files(names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        path = ROOT / name
        found = path.rglob("*") if path.is_dir() else [path]
        yield from sorted(one for one in found if one.is_file() and "__pycache__" not in one.parts)


def _build(buildah: "Buildah", layout: Path) -> None:
    _say("building the image of the Dockerfile")
    arguments = {"BASE_IMAGE": BASE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "SOURCE_DATE_EPOCH": "0"}
    volumes = {wheels(cache()): "/wheels"}
    buildah.build(IMAGE, None, ROOT, arguments, volumes)
    buildah.build(SANDBOX, SANDBOX_FILE, cache())
    buildah.push(IMAGE, layout, IMAGE)
    buildah.push(IMAGE, layout, OTHER)
    buildah.push(SANDBOX, layout, SANDBOX)


def _pack(layout: Path, archive: Path) -> None:
    unfinished = archive.with_suffix(".new")
    with tarfile.open(unfinished, "w") as file:
        file.add(layout, ".")
    shutil.rmtree(layout)
    unfinished.rename(archive)
    _say(f"built the image: {archive.stat().st_size >> 20} MiB")


def with_base(folder: Path) -> "Buildah":
    """Return buildah with the image that all others begin with."""
    buildah = Buildah(folder)
    if not buildah.has(BASE):
        buildah.build(BASE, "FROM scratch\nADD base.tar /\n", base(folder).parent)
    return buildah


def base(folder: Path) -> Path:
    """Return a root file system with Python, bootstrapped from Debian's packages."""
    target = folder / f"base-{BASE_KEY}" / "base.tar"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        left_out = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
        unfinished = target.with_name("unfinished.tar")
        command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(PACKAGES)}", *left_out]
        run([*command, SUITE, str(unfinished)], os.environ | {"SOURCE_DATE_EPOCH": "0"})
        unfinished.rename(target)
    return target


def wheels(folder: Path) -> Path:
    """Return a folder with every wheel that the build installs, so that the build itself needs no network."""
    locks = [ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "build")]
    target = folder / f"wheels-{hashlib.sha256(b''.join(lock.read_bytes() for lock in locks)).hexdigest()[:12]}"
    if not target.exists():
        for old in folder.glob("wheels-*"):
            shutil.rmtree(old)
        unfinished = target.with_name("unfinished")
        asked = [part for lock in locks for part in ("-r", str(lock))]
        shutil.rmtree(unfinished, ignore_errors=True)
        run([*pip("download"), f"--dest={unfinished}", *asked])
        unfinished.rename(target)
    return target


def pip(command: str) -> list[str]:
    """Return the beginning of pip's command line, for the image's Python and from locks only."""
    platforms = [f"--platform={one}_{os.uname().machine}" for one in PLATFORMS]
    flags = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", f"--python-version={PYTHON}"]
    return [sys.executable, "-m", "pip", command, *flags, *platforms]


class Buildah:
    """Buildah with a storage of its own, in a mount namespace of its own so that no mount is left behind."""

    def __init__(self, folder: Path) -> None:
        self._policy = folder / "policy.json"
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._start = ["unshare", "--mount", "--", "buildah", f"--root={folder / 'storage'}"]
        self._start += [f"--runroot={folder / 'run'}", "--storage-driver=overlay"]
        if len(self._say("images", "--all", "--quiet").split()) > KEPT_IMAGES:
            self._say("rmi", "--all", "--force")

    def has(self, name: str) -> bool:
        """Whether an image is in the storage."""
        return f"{name}\n" in self._say("images", "--format", "{{.Name}}:{{.Tag}}")

    def build(
        self,
        name: str,
        dockerfile: str | None,
        context: Path,
        arguments: dict[str, str] | None = None,
        volumes: dict[Path, str] | None = None,
    ) -> None:
        """Build `name` in `context`, from its Dockerfile or from this text; chroot needs no containers."""
        flags = [f"--signature-policy={self._policy}", "--layers", "--pull-never", "--timestamp=0", "--network=host"]
        flags += ["--isolation=chroot", "--quiet", f"--tag={name}"]
        flags += [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
        flags += [f"--volume={source}:{target}:ro" for source, target in (volumes or {}).items()]
        if dockerfile is not None:
            written = self._policy.with_name("Dockerfile")
            written.write_text(dockerfile)
            flags += [f"--file={written}"]
        self._say("build", *flags, str(context))

    def push(self, name: str, layout: Path, shown: str) -> None:
        """Write an image into an OCI layout under the name that a cluster knows it by."""
        self._say("push", "--quiet", f"--signature-policy={self._policy}", name, f"oci:{layout}:{shown}")

    def _say(self, *args: str) -> str:
        return run([*self._start, *args])


def run(command: Iterable[str], environment: dict[str, str] | None = None) -> str:
    """Run a command; return what it printed; ImageError when it failed."""
    result = subprocess.run([*command], capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        raise ImageError(f"{' '.join(command)} failed:\n{(result.stderr or result.stdout)[-3000:]}")
    return result.stdout


def _say(text: str) -> None:
    sys.stderr.write(f"image: {text}\n")
    sys.stderr.flush()
