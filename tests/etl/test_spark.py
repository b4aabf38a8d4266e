"""The home of Spark that a landing makes for itself."""

from pathlib import Path

import pyspark

from etl.spark import NEEDED, UNUSED, lean_home

JARS = Path(pyspark.__file__).parent / "jars"


def test_every_left_out_jar_is_one_of_sparks():
    """A new version of Spark may spell them otherwise."""
    names = [path.name for path in JARS.iterdir()]
    for beginning in (*UNUSED, *NEEDED):
        assert any(name.startswith(beginning) for name in names), beginning


def test_a_home_has_what_a_landing_needs_and_is_made_once(tmp_path):
    home = lean_home(tmp_path)
    names = {path.name for path in (home / "jars").iterdir()}
    all_names = {path.name for path in JARS.iterdir()}
    assert names < all_names
    assert any(name.startswith("spark-sql_") for name in names)
    assert any(name.startswith("hive-storage-api") for name in names)
    assert {name for name in names if name.startswith("spark-mllib")} == set()
    assert (home / "bin" / "spark-submit").is_file()
    assert (home / "python" / "lib" / "pyspark.zip").is_file()  # what its Python processes import

    made = (home / "jars").stat().st_ino
    assert lean_home(tmp_path) == home
    assert (home / "jars").stat().st_ino == made


def test_a_home_of_a_spark_that_has_moved_is_made_anew(tmp_path):
    jar = next((lean_home(tmp_path) / "jars").iterdir())
    jar.unlink()
    jar.symlink_to(tmp_path / "no-longer-here.jar")
    assert all(path.exists() for path in (lean_home(tmp_path) / "jars").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == [f"home-{pyspark.__version__}"]
