"""What the lock files in requirements/ say, and whether what was fetched is what they say. Standard library only.

Two formats: pip's own (names, versions, hashes) for Python, and `group:artifact:version --hash=sha256:…` for jars.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
JAR = re.compile(
    r"^(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.-]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})$"
)
GPU_PACKAGES = re.compile(r"^(nvidia-|cuda-|triton$)")


class WrongContent(Exception):
    """A file is not the one that the lock names."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(*texts: str) -> str:
    """Return what stands in an environment's stamp: a digest of all that decides what is installed in it."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def blocks(lock: str) -> list[str]:
    """Return a pip lock as blocks: a requirement with its indented hashes and notes, or one comment line."""
    found: list[str] = []
    for line in lock.splitlines(keepends=True):
        if line[:1].isspace() and found:
            found[-1] += line
        else:
            found.append(line)
    return found


def pinned(lock: str) -> dict[str, str]:
    """Return name → version of a pip lock."""
    matches = (REQUIREMENT.match(block) for block in blocks(lock))
    return {match["name"]: match["version"] for match in matches if match}


def local_wheel(folders: Iterable[Path], name: str, version: str, tag: str, machine: str) -> Path | None:
    """Return the wheel of exactly this release for this interpreter and machine in one of these folders, or None.

    Args:
        folders: pip's find-links folders; one that does not exist is skipped.
        name: the distribution, e.g. `torch`.
        version: public version; a local build of it, e.g. `2.13.0+cpu`, is that release too.
        tag: interpreter tag, e.g. `cp311`.
        machine: e.g. `x86_64`.
    """
    wanted = re.compile(rf"^{re.escape(name)}-{re.escape(version)}(\+[\w.]+)?-{tag}-{tag}-\w*{machine}\.whl$")
    found = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    return next((path for path in found if wanted.match(path.name)), None)


def with_local_torch(lock: str, wheel: Path) -> str:
    """Return the lock for a machine that brings its own CPU build of torch.

    The wheel's hash is added to torch's, and the GPU libraries that only the published build needs are left out.

    Raises:
        ValueError: the lock pins no torch.
    """
    kept, is_pinned = [], False
    for block in blocks(lock):
        match = REQUIREMENT.match(block)
        if match and GPU_PACKAGES.match(match["name"]):
            continue
        if match and match["name"] == "torch":
            head, _, rest = block.partition("\n")
            block = f"{head}\n    --hash=sha256:{sha256_of(wheel)} \\\n{rest}"
            is_pinned = True
        kept.append(block)
    if not is_pinned:
        raise ValueError("the lock pins no torch")
    return "".join(kept)


@dataclass(frozen=True)
class Jar:
    """One line of requirements/jars.txt."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def read_jars(lock: str) -> list[Jar]:
    """Return the jars of a lock.

    Raises:
        ValueError: a line has another form; the message shows it.
    """
    jars = []
    for line in lock.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = JAR.match(line)
        if match is None:
            raise ValueError(f"not a line of the jar lock: {line}")
        jars.append(Jar(**match.groupdict()))
    return jars


def verify_jars(folder: Path, jars: Iterable[Jar]) -> None:
    """Return if the folder holds exactly these jars.

    Raises:
        WrongContent: one is missing, changed, or not in the lock; all of them are named.
    """
    wanted = {jar.file_name: jar.sha256 for jar in jars}
    there = {path.name: sha256_of(path) for path in folder.glob("*.jar")}
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - there.keys())]
    faults += [f"{name} is not in the lock" for name in sorted(there.keys() - wanted.keys())]
    faults += [
        f"{name} has SHA-256 {there[name]} instead of {wanted[name]}"
        for name in sorted(wanted.keys() & there.keys())
        if wanted[name] != there[name]
    ]
    if faults:
        raise WrongContent("; ".join(faults))


def ivy_module(jars: Iterable[Jar]) -> str:
    """Return the Ivy module that asks for exactly these jars and nothing that they depend on."""
    wanted = "".join(
        f'<dependency org="{jar.group}" name="{jar.artifact}" rev="{jar.version}" transitive="false"/>' for jar in jars
    )
    return (
        '<ivy-module version="2.0"><info organisation="recsys" module="kafka"/>'
        f"<dependencies>{wanted}</dependencies></ivy-module>"
    )


IVY_SETTINGS = """<ivysettings><settings defaultResolver="public"/><resolvers>
<ibiblio name="public" m2compatible="true" usepoms="false" useMavenMetadata="false"/>
</resolvers></ivysettings>
"""
"""Ivy's own default repository, without reading a POM for each jar: the lock already names all of them."""
