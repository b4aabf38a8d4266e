"""A release's image: made from the bundle that this machine has, and brought to the target's registry."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from infra.targets import Release, Target
from recsys.errors import MissingArtifact, RecsysError

Step = Literal["build", "push"]


def make(step: Step, target: Target, release: Release, bundles: Path, is_dry: bool = False) -> dict[str, Any]:
    """Run the command that the target names, its output on stderr; in a dry run only say it.

    Args:
        bundles: folder with a folder `v<version>` of each version that was deployed here.

    Raises:
        MissingArtifact: the version's bundle is not on this machine.
        RecsysError: the command is not installed, or it failed.
    """
    bundle = bundles / f"v{release.version}"
    if step == "build" and not bundle.is_dir():
        raise MissingArtifact(
            f"bundle of version {release.version}",
            bundle,
            "Deploy it here first: `python -m infra canary --target local`",
        )
    command = target.build(release, bundle) if step == "build" else target.push(release)
    if not is_dry:
        try:
            subprocess.run(command, check=True, stdout=sys.stderr)
        except FileNotFoundError as error:
            raise RecsysError(command[0], "not installed", "It is a Debian package (docs/clouds.md)") from error
        except subprocess.CalledProcessError as error:
            raise RecsysError(step, f"exit code {error.returncode}", "See above what the command said") from error
    return {"target": target.name, "step": step, "image": release.image, "command": shlex.join(command)}
