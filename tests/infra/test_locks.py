"""What setup reads from the lock files, and what it refuses."""

import hashlib

import pytest

from infra.local import locks
from recsys.settings import HOME

LOCK = """# pinned by uv
numpy==2.4.6 \\
    --hash=sha256:aaaa
    # via torch
nvidia-cublas==13.1.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:bbbb
    # via torch
cuda-toolkit==13.0.3.0 ; sys_platform == 'linux' \\
    --hash=sha256:cccc
torch==2.13.0 \\
    --hash=sha256:dddd \\
    --hash=sha256:eeee
    # via -r requirements/platform.in
triton==3.7.1 ; sys_platform == 'linux' \\
    --hash=sha256:ffff
"""


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    path.write_bytes(b"a CPU build")
    return path


def test_a_local_torch_is_allowed_by_its_hash_and_needs_no_gpu_libraries(wheel):
    derived = locks.with_local_torch(LOCK, wheel)
    assert locks.pinned(derived) == {"numpy": "2.4.6", "torch": "2.13.0"}
    torch = next(block for block in locks.blocks(derived) if block.startswith("torch"))
    digest = hashlib.sha256(b"a CPU build").hexdigest()
    assert torch.splitlines()[:4] == [
        "torch==2.13.0 \\",
        f"    --hash=sha256:{digest} \\",
        "    --hash=sha256:dddd \\",
        "    --hash=sha256:eeee",
    ]
    assert "sha256:aaaa" in derived


def test_a_lock_without_torch_cannot_take_a_local_one(wheel):
    with pytest.raises(ValueError, match="pins no torch"):
        locks.with_local_torch("numpy==2.4.6 \\\n    --hash=sha256:aaaa\n", wheel)


def test_the_real_lock_loses_exactly_its_gpu_libraries(wheel):
    lock = (HOME / "requirements" / "platform.txt").read_text()
    before, after = locks.pinned(lock), locks.pinned(locks.with_local_torch(lock, wheel))
    gone = before.keys() - after.keys()
    assert {"triton", "nvidia-cublas", "cuda-toolkit"} <= gone
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in gone)
    assert after.items() <= before.items()
    assert "tensorflow-cpu" in after


@pytest.mark.parametrize(
    ("name", "is_found"),
    [
        ("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("torch-2.13.0-cp311-cp311-linux_x86_64.whl", True),
        ("torch-2.13.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl", False),
        ("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("torchvision-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", False),
    ],
)
def test_only_this_release_for_this_interpreter_and_machine_counts(tmp_path, name, is_found):
    (tmp_path / name).touch()
    missing = tmp_path / "not-there"
    found = locks.local_wheel([missing, tmp_path], "torch", "2.13.0", "cp311", "x86_64")
    assert (found is not None) == is_found


@pytest.fixture
def jars(tmp_path):
    (tmp_path / "a-1.0.jar").write_bytes(b"a")
    (tmp_path / "b-2.0.jar").write_bytes(b"b")
    return [
        locks.Jar("org.x", "a", "1.0", hashlib.sha256(b"a").hexdigest()),
        locks.Jar("org.x", "b", "2.0", hashlib.sha256(b"b").hexdigest()),
    ]


def test_the_locked_jars_are_accepted(tmp_path, jars):
    locks.verify_jars(tmp_path, jars)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "a-1.0.jar").write_bytes(b"evil"), "a-1.0.jar has SHA-256"),
        (lambda folder: (folder / "b-2.0.jar").unlink(), "b-2.0.jar is missing"),
        (lambda folder: (folder / "c-3.0.jar").write_bytes(b"c"), "c-3.0.jar is not in the lock"),
    ],
)
def test_any_other_jar_is_refused(tmp_path, jars, spoil, sentence):
    spoil(tmp_path)
    with pytest.raises(locks.WrongContent, match=sentence):
        locks.verify_jars(tmp_path, jars)


def test_the_jar_lock_names_the_broker_and_no_address():
    text = (HOME / "requirements" / "jars.txt").read_text()
    names = [jar.file_name for jar in locks.read_jars(text)]
    assert "kafka_2.13-4.2.0.jar" in names
    assert len(set(names)) == len(names)
    assert "http" not in text


def test_a_jar_without_hash_is_refused():
    with pytest.raises(ValueError, match=r"org\.x:a:1\.0"):
        locks.read_jars("org.x:a:1.0\n")
