"""The file of `benchmarks/gpu.py --pack`, for a machine that has JAX or PyTorch, but neither Keras 3 nor a network."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CARRIED = ("keras", "pytorchcv")
"""With what they need, these packages are in the file of `--pack`, besides what this package imports on its way."""
IMPORTED = ("absl-py", "filelock", "h5py", "lazy_loader", "requests", "tqdm")
NOT_CARRIED = {
    "jax",
    "jaxlib",
    "ml-dtypes",
    "numpy",
    "scipy",
    "tensorflow",
    "torch",
    "torchvision",
}
"""Large, bound to the device's driver, or there with JAX and PyTorch anyway."""
COMPILED = ("h5py", "optree")
"""Carried for each Python: all else is Python's own code."""
MAIN = """\
\"\"\"Unpacks this file beside itself, and runs `benchmarks/gpu.py`.\"\"\"

import os
import sys
import zipfile
from pathlib import Path

packed = Path(sys.argv[0]).resolve()
folder = packed.with_suffix("")
with zipfile.ZipFile(packed) as file:
    file.extractall(folder)
version = "cp{}{}".format(*sys.version_info)
if not (folder / version).is_dir():
    found = sorted(path.name for path in folder.glob("cp3*"))
    sys.exit(f"{packed.name} was made for {', '.join(found)}; this is {version}: pack it with --python")
paths = [str(folder), str(folder / "libraries"), str(folder / version), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
os.execv(sys.executable, [sys.executable, str(folder / "benchmarks" / "gpu.py"), *sys.argv[1:]])
"""


def requirements(names: tuple[str, ...]) -> list[str]:
    """Returns the installed distributions that these need, themselves among them, without `NOT_CARRIED`."""
    found: list[str] = []
    waiting = list(names)
    while waiting:
        name = re.match(r"[\w.-]+", waiting.pop(0))[0].lower().replace("_", "-")
        if name in found or name in NOT_CARRIED:
            continue
        found.append(name)
        needed = importlib.metadata.requires(name) or []
        waiting += [one for one in needed if ";" not in one]
    return found


def pack(path: Path, pythons: list[str]) -> None:
    """Writes the file that runs where neither Keras nor a network is: this package, benchmarks and pure libraries."""
    own = "{}.{}".format(*sys.version_info)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("__main__.py", MAIN)
        for source in [*ROOT.glob("polynet_keras/**/*"), *ROOT.glob("benchmarks/*.py")]:
            if source.is_file() and "__pycache__" not in source.parts:
                file.write(source, source.relative_to(ROOT))
        for name in requirements((*CARRIED, *IMPORTED)):
            folder = "libraries" if name not in COMPILED else tag(own)
            if folder != "libraries" and own not in pythons:
                continue
            for part in importlib.metadata.files(name) or []:
                if is_needed(part) and part.locate().is_file():
                    file.write(part.locate(), f"{folder}/{part}")
        for python in sorted({*pythons} - {own}):
            for wheel, content in downloaded(python):
                print(f"{wheel} for Python {python}", file=sys.stderr)
                with zipfile.ZipFile(content) as inner:
                    for name in inner.namelist():
                        file.writestr(f"{tag(python)}/{name}", inner.read(name))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, for Python {', '.join(pythons)}", file=sys.stderr)


def tag(python: str) -> str:
    return f"cp{python.replace('.', '')}"


def is_needed(part) -> bool:
    """Whether a file of a package is needed: no tests, nothing outside of the folder of packages."""
    text = part.as_posix()
    return ".." not in part.parts and not re.search(r"_test\.py$|/tests?/|__pycache__", text)


def downloaded(python: str) -> Iterator[tuple[str, Path]]:
    """Yields the wheels of `COMPILED` for another Python, by pip."""
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in COMPILED]
    options = ["--no-deps", "--only-binary=:all:", f"--python-version={python}"]
    options += [f"--platform={name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([shutil.which("pip") or "pip", "download", "-q", "-d", folder, *options, *pinned], check=True)
        for wheel in sorted(Path(folder).iterdir()):
            yield wheel.name, wheel
