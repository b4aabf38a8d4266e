"""Finds the Java that runs Spark and Kafka. Standard library only."""

import re
import subprocess
from shutil import which

OLDEST = 17
VECTOR_MODULE = "jdk.incubator.vector"
"""Spark's launcher asks for it; a cut-down runtime that lacks it ends at once."""


class NoJava(Exception):
    """No usable Java is on this machine; the message says what was found."""


def find_java() -> str:
    """Return the path of `java`: of JAVA_HOME when that is set, else of PATH.

    Raises:
        NoJava: there is none.
    """
    shell = which("sh") or "/bin/sh"
    found = subprocess.run(  # the shell, not this process, reads JAVA_HOME: the environment belongs to the settings
        [shell, "-c", 'command -v "${JAVA_HOME:+$JAVA_HOME/bin/}java"'], capture_output=True, text=True
    )
    if found.returncode != 0:
        raise NoJava("no `java` in JAVA_HOME or on PATH")
    return found.stdout.strip()


def java_version(java: str) -> int:
    """Return the feature release of this Java, e.g. 17.

    Raises:
        NoJava: it does not run, it lacks the vector module, or its answer names no version.
    """
    answer = subprocess.run([java, "--add-modules", VECTOR_MODULE, "-version"], capture_output=True, text=True)
    said = answer.stderr + answer.stdout
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if answer.returncode != 0 or match is None:
        raise NoJava(f"{java} does not run as a JDK: {said.strip().splitlines()[0] if said.strip() else 'no answer'}")
    return int(match[1])


def check_java() -> tuple[str, int]:
    """Return path and feature release of a Java that Spark and Kafka can use.

    Raises:
        NoJava: there is none, or it is too old.
    """
    java = find_java()
    version = java_version(java)
    if version < OLDEST:
        raise NoJava(f"{java} is version {version}")
    return java, version
