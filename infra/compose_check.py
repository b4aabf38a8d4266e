"""Judge docker-compose.yml without a Docker daemon: `python -m infra.compose_check [file]`.

Its form is judged by the Compose Specification's own schema (as check-jsonschema carries it), what the schema cannot
know by the rules below. Each rule takes the parsed file and returns one sentence a fault.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from recsys import station
from recsys.errors import CheckFailed, UnusableInput
from recsys.settings import HOME, Settings

Compose = dict[str, Any]

INTERPOLATION = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rest>[^}]*)\}|(?<!\$)\$(?P<bare>[A-Za-z_]\w*)")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|PRIVATE|API_KEY", re.IGNORECASE)
NOT_A_SECRET = re.compile(r"PASSWORDS?_FILE$|^PASSWORD_")
PASSWORD_IN_URL = re.compile(r"\w+://[^\s:/@]*:(?P<password>[^\s@]+)@")
REQUIRED_VARIABLE = re.compile(r"\$\{\w+:\?[^}]+\}")
FULL_TAG = re.compile(r"^v?\d+\.\d+(\.\d+)?([._-][\w.]+)*$")
COPIED = re.compile(r"^COPY((?:\s+--\S+)*)\s+(.+)\s+\S+$", re.MULTILINE)
DOCKERFILE_FROM = re.compile(r"^FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


def unpinned_images(compose: Compose, folder: Path) -> list[str]:
    """Find images without a full version in their tag, in the file and in the Dockerfiles that it builds."""
    faults = [
        f"{name}: image {service.get('image')} is not pinned to a full version"
        for name, service in _services(compose)
        if not _is_pinned(service.get("image", ""))
    ]
    for _, dockerfile, target in _dockerfiles(compose, folder):
        text = _stages(dockerfile, target)
        defaults = dict(re.findall(r"^ARG\s+(\w+)=(\S+)", text, re.MULTILINE))
        stages: set[str] = {"scratch"}
        for image, stage in DOCKERFILE_FROM.findall(text):
            for argument, default in defaults.items():
                image = re.sub(rf"\$(?:{argument}\b|{{{argument}}})", default.strip('"'), image)
            if image not in stages and not _is_pinned(image):
                faults.append(f"{dockerfile.relative_to(folder)}: FROM {image} is not pinned to a full version")
            stages.add(stage)
    return sorted(set(faults))


def foreign_versions(compose: Compose, folder: Path) -> list[str]:
    """Find images that we build under another version than the project's."""
    version = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    return [
        f"{name}: image {service.get('image')} is built from this tree, whose version is {version}"
        for name, service in _services(compose)
        if "build" in service and not str(service.get("image", "")).endswith(f":{version}")
    ]


def unwatched_services(compose: Compose, _: Path) -> list[str]:
    """Find services that nobody can tell the health of: no health check, and no one-shot."""
    faults = []
    for name, service in _services(compose):
        check = service.get("healthcheck", {})
        is_watched = bool(check.get("test")) and not check.get("disable") and check["test"] not in (["NONE"], "NONE")
        trivial = bool(check.get("test")) and re.fullmatch(
            r"(CMD|CMD-SHELL)?\s*(/bin/)?(true|:|exit 0)", _words(check["test"])
        )
        if name in one_shots(compose):
            if service.get("restart") not in (None, "no"):
                faults.append(f"{name}: a one-shot that restarts never completes")
        elif not is_watched or trivial:
            faults.append(f"{name}: has no health check that can fail")
    return faults


def one_shots(compose: Compose) -> set[str]:
    """Return the services that others wait for to complete."""
    return {
        wanted
        for _, service in _services(compose)
        for wanted, how in _dependencies(service).items()
        if how.get("condition") == "service_completed_successfully"
    }


def default_secrets(compose: Compose, _: Path) -> list[str]:
    """Find secrets that have a value in the file, or a default: each must be `${NAME:?message}`."""
    faults = []
    for place, name, value in _strings(compose):
        secrets = [value] if SECRET_NAME.search(name) and not NOT_A_SECRET.search(name) else []
        secrets += [match["password"] for match in PASSWORD_IN_URL.finditer(value)]
        faults += [
            f"{place}: a secret with a value or a default" for s in secrets if not REQUIRED_VARIABLE.fullmatch(s)
        ]
        faults += [
            f"{place}: {match['name'] or match['bare']} is not required with `:?`"
            for match in INTERPOLATION.finditer(value)
            if SECRET_NAME.search(match["name"] or match["bare"]) and not (match["rest"] or "").startswith(":?")
        ]
    return sorted(set(faults))


def undocumented_variables(compose: Compose, folder: Path) -> list[str]:
    """Find required variables that .env.example lacks, names there that nothing needs, and values there."""
    required = {
        match["name"]
        for _, _, value in _strings(compose)
        for match in INTERPOLATION.finditer(value)
        if match["name"] and match["rest"].startswith((":?", "?"))
    }
    example = folder / ".env.example"
    lines = example.read_text().splitlines() if example.is_file() else []
    entries = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return (
        [f".env.example does not name {name}" for name in sorted(required - set(entries))]
        + [f".env.example names {name}, which nothing requires" for name in sorted(set(entries) - required)]
        + [f".env.example gives {name} a value" for name, value in entries.items() if value.strip()]
    )


def missing_files(compose: Compose, folder: Path) -> list[str]:
    """Find Dockerfiles, what they copy, and mounted files that are not in the tree."""
    faults = []
    for name, dockerfile, target in _dockerfiles(compose, folder):
        if not dockerfile.is_file():
            faults.append(f"{name}: {dockerfile.relative_to(folder)} does not exist")
            continue
        for options, sources in COPIED.findall(_stages(dockerfile, target)):
            if "--from" not in options:
                faults += [
                    f"{dockerfile.relative_to(folder)}: COPY of {source}, which does not exist"
                    for source in sources.split()
                    if not any(folder.glob(source.strip("/")))
                ]
    for name, service in _services(compose):
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume.get("source", "")
            if source.startswith(".") and not (folder / source).exists():
                faults.append(f"{name}: mounts {source}, which does not exist")
            elif re.match(r"\w", source) and source not in compose.get("volumes", {}):
                faults.append(f"{name}: the volume {source} is not declared")
    return sorted(set(faults))


def unknown_settings(compose: Compose, _: Path) -> list[str]:
    """Find `RECSYS_` variables that are no settings: a typing error would be silently ignored."""
    known = {f"RECSYS_{name.upper()}" for name in Settings.model_fields}
    return sorted(
        {
            f"{name}: {variable} is no setting of recsys/settings.py"
            for name, service in _services(compose)
            for variable in _environment(service)
            if variable.startswith("RECSYS_") and variable not in known
        }
    )


def public_ports(compose: Compose, _: Path) -> list[str]:
    """Find ports that are published beyond this machine."""
    return [
        f"{name}: publishes {port}; bind it to 127.0.0.1"
        for name, service in _services(compose)
        for port in service.get("ports", [])
        if not (port.get("host_ip") == "127.0.0.1" if isinstance(port, dict) else str(port).startswith("127.0.0.1:"))
    ]


def impossible_waits(compose: Compose, _: Path) -> list[str]:
    """Find dependencies on services that are not there, or on the health of one that tells none."""
    services = dict(_services(compose))
    faults = []
    for name, service in services.items():
        for wanted, how in _dependencies(service).items():
            if wanted not in services:
                faults.append(f"{name}: waits for {wanted}, which is no service")
            elif how.get("condition") == "service_healthy" and "healthcheck" not in services[wanted]:
                faults.append(f"{name}: waits for the health of {wanted}, which has no health check")
            elif how.get("condition", "service_started") == "service_started":
                faults.append(f"{name}: waits for {wanted} to start only, not to be healthy or complete")
    return faults


RULES = (
    unpinned_images, foreign_versions, unwatched_services, default_secrets, undocumented_variables, missing_files,
    unknown_settings, public_ports, impossible_waits,
)  # fmt: skip


def schema_faults(path: Path) -> list[str]:
    """Let check-jsonschema judge the file by the Compose Specification; its report's lines when it finds a fault."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()


def faults_of(path: Path) -> list[str]:
    """Return every fault of a compose file, one sentence each; the files that it names are looked up beside it.

    Raises:
        UnusableInput: the file is missing or no YAML mapping with services.
    """
    try:
        compose = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UnusableInput("compose file", path.name, f"It cannot be read: {error}") from error
    if not isinstance(compose, dict) or not compose.get("services"):
        raise UnusableInput("compose file", path.name, "It declares no services")
    return schema_faults(path) or [fault for rule in RULES for fault in rule(compose, path.parent)]


def check(path: Path) -> dict[str, object]:
    """Return what was judged.

    Raises:
        CheckFailed: the file has faults; the sentence names all of them.
        UnusableInput: it cannot be read.
    """
    faults = faults_of(path)
    if faults:
        raise CheckFailed(path.name, "; ".join(faults), "Mend them and run `make compose-check` again")
    services = yaml.safe_load(path.read_text())["services"]
    return {"file": path.name, "services": sorted(services), "rules": 1 + len(RULES), "unchanged": True}


def _services(compose: Compose) -> list[tuple[str, Compose]]:
    return sorted(compose["services"].items())


def _dependencies(service: Compose) -> dict[str, Compose]:
    wanted = service.get("depends_on", {})
    return wanted if isinstance(wanted, dict) else {name: {} for name in wanted}


def _environment(service: Compose) -> dict[str, str]:
    given = service.get("environment", {})
    return given if isinstance(given, dict) else dict(entry.split("=", 1) for entry in given if "=" in entry)


def _dockerfiles(compose: Compose, folder: Path) -> list[tuple[str, Path, str]]:
    """Return (service, Dockerfile, target stage) of every service that is built; the target may be empty."""
    found = []
    for name, service in _services(compose):
        if build := service.get("build"):
            build = {"context": build} if isinstance(build, str) else build
            path = folder / build["context"] / build.get("dockerfile", "Dockerfile")
            found.append((name, path, build.get("target", "")))
    return found


def _stages(dockerfile: Path, target: str) -> str:
    """Return the text of a Dockerfile up to the end of its target stage; nothing if the file is not there."""
    text = dockerfile.read_text() if dockerfile.is_file() else ""
    starts = [match.start() for match in re.finditer(r"^FROM\s", text, re.MULTILINE)]
    names = [stage for _, stage in DOCKERFILE_FROM.findall(text)]
    later = starts[names.index(target) + 1 :] if target in names else []
    return text[: later[0]] if later else text


def _strings(node: Any, place: str = "", name: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (place, name of the last key or of the `NAME=value` entry, value) of every string in the file."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(value, f"{place}.{key}".strip("."), str(key))
    elif isinstance(node, list):
        for entry in node:
            is_variable = name in ("environment", "args") and isinstance(entry, str) and "=" in entry
            key, value = entry.split("=", 1) if is_variable else (name, entry)
            yield from _strings(value, f"{place}.{key}" if is_variable else place, key)
    elif node is not None:
        yield place, name, str(node)


def _words(test: str | list[str]) -> str:
    return test if isinstance(test, str) else " ".join(test)


def _is_pinned(image: str) -> bool:
    name, _, tag = image.rpartition(":")
    return "@sha256:" in image or bool(name and "/" not in tag and FULL_TAG.match(tag))


if __name__ == "__main__":
    station.run(lambda: check(Path(sys.argv[1]) if len(sys.argv) > 1 else HOME / "docker-compose.yml"))
