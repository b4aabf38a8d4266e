"""Sets up everything that the platform needs below `.venv/`, from hash-checked locks; without root, for one user.

    python3.11 -m infra.local.setup [--with-tests] [--with-clouds] [--with-load] [--with-peers]

Standard library only: this runs before anything is installed. It says first what this machine lacks, all of it at once.
Each environment carries a stamp of what decided its content, so a second run costs nothing.
"""

import argparse
import ast
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from infra.local import locks
from infra.local.java import OLDEST, NoJava, check_java, find_java

HOME = Path(__file__).resolve().parents[2]
VENVS, LOCKS = HOME / ".venv", HOME / "requirements"
KAFKA, BOOTSTRAP = VENVS / "kafka", VENVS / "bootstrap"
STAMP = ".recsys-stamp"
NEEDED_BYTES = 12 * 2**30
PROGRESS_SECONDS = 10
BUILT_HERE = ("--only-binary", ":all:", "--no-binary", "pyspark")
"""Spark is published as source only; its build runs with the lock's own setuptools and wheel."""
GO_TOOLS = {
    "kubeconform": ("github.com/yannh/kubeconform/cmd/kubeconform@v0.6.7", ()),
    "kustomize": ("sigs.k8s.io/kustomize/kustomize/v5@v5.5.0", ("kubectl",)),
}
"""What judges the Kubernetes manifests: command → its Go module, and what else does the same. Go checks the sums."""
INTERPRETER = f"cp{sys.version_info.major}{sys.version_info.minor}"


class SetupFailed(Exception):
    """A step failed; the message is one sentence with the way out."""


class Progress:
    """Lines with the seconds since the start, from several threads."""

    def __init__(self) -> None:
        self._start, self._lock = time.perf_counter(), threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            print(f"[{time.perf_counter() - self._start:6.1f} s] {text}", flush=True)


def complaints() -> list[str]:
    """Return one sentence for each thing that this machine lacks, with the way out."""
    found = []
    if sys.version_info[:2] != (3, 11):
        running = platform.python_version()
        found.append(f"Python: {running} runs this. Install Python 3.11 and call `make PYTHON=/path/to/python3.11 …`.")
    try:
        check_java()
    except NoJava as error:
        found.append(
            f"Java: {error}. Install a JDK {OLDEST} or newer (e.g. the package openjdk-{OLDEST}-jdk-headless) or set "
            "JAVA_HOME to one."
        )
    free = shutil.disk_usage(HOME).free
    if free < NEEDED_BYTES and not (VENVS / "platform" / STAMP).exists():
        found.append(
            f"Disk: {free / 2**30:.1f} GiB are free where {HOME} lies. "
            f"Make room for {NEEDED_BYTES / 2**30:.0f} GiB, or move the repository."
        )
    if platform.system() not in ("Linux", "Darwin"):
        found.append(f"System: {platform.system()} has no package of PostgreSQL. Use Linux or macOS.")
    return found


def run(command: list[str], log: Path) -> None:
    """Run a command to its end, with its output in a log file.

    Raises:
        SetupFailed: it failed; the sentence carries the log's last lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        try:
            code = subprocess.run(command, cwd=HOME, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode
        except FileNotFoundError as error:
            raise SetupFailed(f"{command[0]} is not there. Remove {VENVS} and run `make setup` again.") from error
    if code != 0:
        tail = " | ".join(line.strip() for line in log.read_text(errors="replace").splitlines()[-6:])
        raise SetupFailed(f"{Path(command[0]).name} ended with {code}: {tail}. The whole log is {log}.")


def pip_configuration(python: str) -> dict[str, list[str]]:
    """Return what pip's configuration and environment say, name → values, e.g. `find-links` → folders.

    uv reads none of it; a user who has told pip about a mirror, a folder of wheels or a certificate means uv as well.
    A setting of the environment (`:env:`) is stronger than one of a file.
    """
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = {}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        name = key.split(".", 1)[1] if "." in key else key
        found[name] = str(ast.literal_eval(value)).split()
    return found


def uv_command(configuration: dict[str, list[str]]) -> list[str]:
    """Return the beginning of every uv command: pip's certificate and patience in uv's own variables."""
    variables = ["UV_PYTHON_DOWNLOADS=never"]
    variables += [f"SSL_CERT_FILE={path}" for path in configuration.get("cert", [])]
    patience = configuration.get("timeout") or configuration.get("default-timeout") or []
    variables += [f"UV_HTTP_TIMEOUT={seconds}" for seconds in patience]
    return [shutil.which("env") or "env", *variables, str(BOOTSTRAP / "bin" / "uv")]


def uv_sources(configuration: dict[str, list[str]]) -> list[str]:
    """Return uv's arguments for where packages come from, as pip was told."""
    options = {"find-links": "--find-links", "index-url": "--default-index", "extra-index-url": "--index"}
    return [
        word for name, option in options.items() for value in configuration.get(name, []) for word in (option, value)
    ]


class Setup:
    """The steps, each idempotent."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.configuration: dict[str, list[str]] = {}

    def bootstrap(self) -> None:
        """Install uv and supervisor with pip itself."""
        lock = LOCKS / "bootstrap.txt"
        wanted = locks.stamp_of(lock.read_text(), sys.version)
        if not self._is_stamped(BOOTSTRAP, {wanted}):
            self.progress.say("bootstrap: installing uv")
            log = VENVS / "logs" / "bootstrap.log"
            try:
                run([sys.executable, "-m", "venv", "--clear", str(BOOTSTRAP)], log)
            except SetupFailed as error:
                raise SetupFailed(f"{error} (On Debian the package python3.11-venv brings what is missing.)") from error
            pip = [str(BOOTSTRAP / "bin" / "python"), "-m", "pip", "--quiet", "install", "--require-hashes"]
            run([*pip, "--only-binary=:all:", "-r", str(lock)], log)
            (BOOTSTRAP / STAMP).write_text(wanted)
        self.configuration = pip_configuration(str(BOOTSTRAP / "bin" / "python"))

    def environment(self, name: str, *lock_names: str, or_more: tuple[str, ...] = ()) -> None:
        """Make `.venv/<name>` hold exactly these locks.

        Args:
            name: the environment.
            lock_names: files in requirements/, without suffix.
            or_more: further locks; an environment that already holds them too is left alone.
        """
        texts = {lock: self._lock_text(lock) for lock in (*lock_names, *or_more)}
        stamp = locks.stamp_of(*(texts[lock] for lock in lock_names), sys.version)
        fuller = locks.stamp_of(*texts.values(), sys.version)
        folder = VENVS / name
        if self._is_stamped(folder, {stamp, fuller}):
            return
        (folder / STAMP).unlink(missing_ok=True)
        count = sum(len(locks.pinned(texts[lock])) for lock in lock_names)
        self.progress.say(f"{name}: installing {count} packages")
        began, log, uv = time.perf_counter(), VENVS / "logs" / f"{name}.log", uv_command(self.configuration)
        written = []
        for lock in lock_names:
            path = VENVS / "logs" / f"{name}-{lock}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[lock])
            written.append(str(path))
        run([*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)], log)
        sources = uv_sources(self.configuration)
        arguments = ["--python", str(folder / "bin" / "python"), "--require-hashes", "--build-constraints", written[0]]
        # Compiling the small environments costs nothing beside the large one's download; that one has 46 000 files,
        # of which a third is ever imported: those are compiled, and kept, when they are.
        compile_now = [] if name == "platform" else ["--compile-bytecode"]
        run([*uv, "pip", "sync", *arguments, *BUILT_HERE, *compile_now, *sources, *written], log)
        (folder / STAMP).write_text(stamp)
        self.progress.say(f"{name}: ready in {time.perf_counter() - began:.1f} s")

    def go_tools(self) -> None:
        """Build what judges the Kubernetes manifests into `.venv/cloud/bin`, where this machine has Go and lacks it."""
        folder = VENVS / "cloud" / "bin"
        for name, (module, others) in GO_TOOLS.items():
            stamp = folder.parent / f"{STAMP}-{name}"
            if (stamp.is_file() and stamp.read_text() == module) or any(map(shutil.which, others)):
                continue
            if shutil.which("go") is None:
                self.progress.say(f"{name}: left out, this machine has no Go; the tests that need it skip and say so")
                continue
            began = time.perf_counter()
            build = [shutil.which("env") or "env", f"GOBIN={folder}", "go", "install", module]
            run(build, VENVS / "logs" / f"{name}.log")
            stamp.write_text(module)
            self.progress.say(f"{name}: built in {time.perf_counter() - began:.1f} s")

    def kafka(self) -> None:
        """Fetch Apache Kafka's jars with the Ivy that comes with Spark, and check each against the lock."""
        lock = (LOCKS / "jars.txt").read_text()
        jars, stamp = locks.read_jars(lock), locks.stamp_of(lock)
        if self._is_stamped(KAFKA, {stamp}):
            return
        self.progress.say(f"kafka: fetching {len(jars)} jars")
        began, work = time.perf_counter(), VENVS / "kafka.unfinished"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            fetch(jars, work, VENVS / "logs" / "kafka.log")
            locks.verify_jars(work / "jars", jars)
        except (SetupFailed, locks.WrongContent) as error:
            raise SetupFailed(
                f"Kafka's jars could not be fetched as requirements/jars.txt names them: {error} "
                "Check that Maven Central or your mirror of it is reached (Ivy's settings: ~/.ivy2/ivysettings.xml)."
            ) from error
        (work / "jars" / STAMP).write_text(stamp)
        shutil.rmtree(KAFKA, ignore_errors=True)
        (work / "jars").rename(KAFKA)
        shutil.rmtree(work)
        self.progress.say(f"kafka: ready in {time.perf_counter() - began:.1f} s")

    def _lock_text(self, name: str) -> str:
        """Return a lock as it applies here: with this machine's own torch where pip's folders hold one."""
        text = (LOCKS / f"{name}.txt").read_text()
        version = locks.pinned(text).get("torch")
        if version is None:
            return text
        folders = [Path(value) for value in self.configuration.get("find-links", [])]
        wheel = locks.local_wheel(folders, "torch", version, INTERPRETER, platform.machine())
        return locks.with_local_torch(text, wheel) if wheel else text

    @staticmethod
    def _is_stamped(folder: Path, stamps: set[str]) -> bool:
        path = folder / STAMP
        return path.is_file() and path.read_text() in stamps


def fetch(jars: list[locks.Jar], work: Path, log: Path) -> None:
    """Let Ivy bring these jars into `work/jars`, from the user's own Ivy settings when there are any."""
    ivy = next((VENVS / "platform" / "lib").glob("python3.*/site-packages/pyspark/jars/ivy-*.jar"), None)
    if ivy is None:
        raise SetupFailed("the platform environment holds no Ivy. Remove .venv/platform and run `make setup` again.")
    users_own = Path.home() / ".ivy2" / "ivysettings.xml"
    settings = users_own if users_own.is_file() else work / "ivysettings.xml"
    (work / "ivysettings.xml").write_text(locks.IVY_SETTINGS)
    with ThreadPoolExecutor(2) as pool:  # Ivy asks for one file after the other
        halves = [jars[0::2], jars[1::2]]
        done = [pool.submit(_fetch_some, some, number, ivy, settings, work, log) for number, some in enumerate(halves)]
        for future in done:
            future.result()


def _fetch_some(some: list[locks.Jar], number: int, ivy: Path, settings: Path, work: Path, log: Path) -> None:
    module = work / f"ivy-{number}.xml"
    module.write_text(locks.ivy_module(some))
    pattern = str(work / "jars" / "[artifact]-[revision].[ext]")
    java = [find_java(), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(ivy), "org.apache.ivy.Main"]
    arguments = ["-settings", str(settings), "-ivy", str(module), "-cache", str(work / f"cache-{number}")]
    run([*java, *arguments, "-retrieve", pattern], log.with_name(f"kafka-{number}.log"))


def in_parallel(progress: Progress, tasks: dict[str, Callable[[], None]]) -> None:
    """Run the tasks at the same time and say every few seconds which ones are still at work.

    Raises:
        SetupFailed: of the first task that failed, when all have ended.
    """
    with ThreadPoolExecutor(len(tasks)) as pool:
        running: dict[Future[None], str] = {pool.submit(task): name for name, task in tasks.items()}
        pending: Iterable[Future[None]] = running
        while pending:
            done, pending = wait(pending, timeout=PROGRESS_SECONDS, return_when=FIRST_COMPLETED)
            if pending and not done:
                progress.say(f"still at work: {', '.join(sorted(running[future] for future in pending))}")
        for future in running:
            future.result()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3.11 -m infra.local.setup", description=__doc__.splitlines()[0])
    parser.add_argument("--with-tests", action="store_true", help="also what the tests need")
    parser.add_argument("--with-clouds", action="store_true", help="also the clouds' SDKs, and what rehearses them")
    parser.add_argument("--with-load", action="store_true", help="also Locust, for load as users make it")
    parser.add_argument("--with-peers", action="store_true", help="also the libraries that run beside our models")
    arguments = parser.parse_args()

    lacking = complaints()
    if lacking:
        print("This machine is not ready:\n" + "\n".join(f"  {line}" for line in lacking), file=sys.stderr)
        return 1

    progress = Progress()
    setup = Setup(progress)
    tests = ("test",)

    def platform_and_kafka() -> None:
        setup.environment("platform", "platform", *(tests if arguments.with_tests else ()), or_more=tests)
        setup.kafka()

    def small_environments() -> None:
        setup.environment("orchestrator", "orchestrator")
        setup.environment("serving", "serving")
        if arguments.with_clouds:
            setup.environment("cloud", "cloud", "cloud-test")
            setup.go_tools()
        if arguments.with_load:
            setup.environment("load", "load")
        if arguments.with_peers:
            setup.environment("peers", "peers")

    try:
        setup.bootstrap()
        in_parallel(progress, {"platform": platform_and_kafka, "orchestrator, serving": small_environments})
    except SetupFailed as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    progress.say("environments are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
