"""What `predict` reads: files found by name, and the rows of tables, with a reason for each that cannot be used."""

from __future__ import annotations

import csv
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit.data.dataset import describe_input
from trainkit.data.spec import InputSpec
from trainkit.errors import DataError
from trainkit.predict import inputs, rows


def model_input(shape: tuple[int, ...], dtype: str = "float32", features: list[str] | None = None) -> InputSpec:
    """What a model of such inputs knows of them."""
    return describe_input(np.empty((0, *shape), dtype), names=features)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_is_searched_deeply_and_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "deep/er/c.webp", "notes.txt", ".hidden.png", ".git/d.png", "ä b.gif")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    found = [os.path.relpath(path, tmp_path) for path in inputs.find(str(tmp_path))]
    assert found == ["a.JPG", "b.png", "deep/er/c.webp", "gone.png", "ä b.gif"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("[ab].*", ["a.png", "b.png"]),
        ("*/c?.png", ["one/c1.png", "two/c2.png"]),
        ("**/c*.png", ["one/c1.png", "one/deep/c3.png", "two/c2.png"]),
        ("one/**", ["one/c1.png", "one/deep/c3.png"]),
        ("one/**/*", ["one/c1.png", "one/deep/c3.png"]),
        ("one/*", ["one/c1.png", "one/deep/c3.png"]),
        ("t*/c2.png", ["two/c2.png"]),
        ("*.jpg", []),
        ("none/*.png", []),
        ("x[1].png", ["x[1].png"]),
    ],
)
def test_patterns(pattern: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "b.png", "a.png", "one/c1.png", "one/deep/c3.png", "two/c2.png", "x[1].png", "x1.txt", ".h.png")
    monkeypatch.chdir(tmp_path)
    wanted = found if pattern != "*.png" else [*found, "x[1].png"]
    assert list(inputs.find(pattern)) == wanted
    absolute = list(inputs.find(f"{tmp_path}/{pattern}"))
    assert [os.path.relpath(path, tmp_path) for path in absolute] == wanted


def test_a_folder_that_cannot_be_listed_is_one_of_the_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "shut/b.png", "z.png")
    (tmp_path / "shut").chmod(0)
    try:
        if os.access(tmp_path / "shut", os.R_OK):
            pytest.skip("this user may read everything")
        found = [os.path.relpath(path, tmp_path) for path in inputs.find(str(tmp_path))]
    finally:
        (tmp_path / "shut").chmod(0o755)
    assert found == ["a.png", "shut", "z.png"]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """Finding four times as many files takes as much memory: a folder is held in parts."""
    touch(tmp_path, "0.png")
    peaks = []
    for count in (12_000, 48_000):
        for number in range(len(os.listdir(tmp_path)), count):
            os.link(tmp_path / "0.png", tmp_path / f"{number}.png")
        tracemalloc.start()
        assert sum(1 for _ in inputs.find(str(tmp_path))) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


@pytest.mark.parametrize(
    ("argument", "shape", "dtype", "message"),
    [
        ("photos", (4,), "float32", "the model takes 4 features: name a .csv, .npz or .parquet file"),
        ("a.csv", (1, 8, 8), "uint8", "the model takes 1x8x8 images: name image files, folders or a .npz file"),
        ("a.png", (4, 8, 8), "uint8", "takes uint8 4x8x8 images, which no image file holds: name a .npz file"),
        ("a.png", (3, 8, 8), "float32", "takes float32 3x8x8 images, which no image file holds: name a .npz file"),
        ("empty", (3, 8, 8), "uint8", "no image in this folder; looked for .jpg"),
        ("nope.png", (3, 8, 8), "uint8", "no such file or folder"),
        ("*.webp", (3, 8, 8), "uint8", "nothing matches this pattern"),
        ("pipe.png", (3, 8, 8), "uint8", "neither a file nor a folder"),
    ],
)
def test_arguments_that_name_nothing_useful(
    argument: str, shape: tuple[int, ...], dtype: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.png", "a.csv", "photos/a.png")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as raised:
        inputs.check([argument], model_input(shape, dtype))
    assert str(raised.value).startswith(f"input={argument}: ") and message in str(raised.value)


def read(path: Path, features: list[str] | None = None, by_position: bool = False) -> tuple[Any, list[str | None]]:
    """All rows of a table for a model of two features, with zeros where there is an error."""
    blocks = list(rows.read(str(path), rows.Wanted((2,), np.dtype("float32"), features, by_position), 3))
    return np.concatenate([values for values, _ in blocks]), [error for _, errors in blocks for error in errors]


@pytest.mark.parametrize(
    ("text", "features", "values"),
    [
        ("1,2\n3,4\n", None, [[1, 2], [3, 4]]),
        ("\ufeffb,extra,a\r\n2,word,1\r\n\r\n4,word,3\r\n", ["a", "b"], [[1, 2], [3, 4]]),
        ("1,2\n", ["a", "b"], [[1, 2]]),
        ('"a"," b "\n"1e3", -2 \n', ["a", "b"], [[1000, -2]]),
        ("2,1\n5,6\n", ["1", "2"], [[6, 5]]),
        ("\n".join(["a,b", *(f"{i},{i}" for i in range(10))]), ["a", "b"], [[i, i] for i in range(10)]),
    ],
)
def test_csv(text: str, features: list[str] | None, values: list[list[float]], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    found, errors = read(tmp_path / "t.csv", features)
    np.testing.assert_array_equal(found, np.array(values, np.float32))
    assert errors == [None] * len(values)


def test_a_bad_row_of_a_csv_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n,5\nsix,7\nnan,8\n9,1e99\n10,11\n1_000,12\n٣,13\n", encoding="utf-8")
    values, errors = read(tmp_path / "t.csv", ["a", "b"])
    assert errors == [
        None,
        "1 cells instead of 2",
        "column 'a' is empty",
        "column 'a' is 'six', not a number",
        "column 'a' is nan",
        "column 'b' is inf",
        None,
        "column 'a' is '1_000', not a number",
        "column 'a' is '٣', not a number",
    ]
    np.testing.assert_array_equal(values[[0, 6]], [[1, 2], [10, 11]])


@pytest.mark.parametrize(
    ("content", "features", "message"),
    [
        (b"", None, "it is empty"),
        (b"a,b,c\n1,2,3\n", None, "it has 3 columns, but the model takes 2 features"),
        (b"a,bb\n1,2\n", ["a", "b"], "it has no column 'b' (is it 'bb'?)"),
        (b"a,b,a\n1,2,3\n", ["a", "b"], "it has 2 columns 'a'"),
        (b"a,b\n\xff,2\n", ["a", "b"], "it is not UTF-8 text"),
        (b"a,b\n" + b"1" * 200_000 + b",2\n", ["a", "b"], "it is no CSV file"),
    ],
)
def test_a_csv_that_cannot_be_read(content: bytes, features: list[str] | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as raised:
        read(tmp_path / "t.csv", features)
    assert message in str(raised.value)


NAMELESS = "its columns have names (b, a), and the model knows none to find them by; if they are its features in its "


def test_a_table_with_names_is_taken_by_position_only_when_asked(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "t.csv").write_text("b,a\n1,2\n3,4\n")
    np.savez(tmp_path / "t.npz", x=np.array([[1, 2], [3, 4]]), features=["b", "a"])
    parquet.write_table(pyarrow.table({"b": [1, 3], "a": [2, 4]}), tmp_path / "t.parquet")
    for file in (tmp_path / "t.csv", tmp_path / "t.npz", tmp_path / "t.parquet"):
        with pytest.raises(DataError) as raised:
            read(file)
        assert str(raised.value) == f"{NAMELESS}order, add by_position=true"
        np.testing.assert_array_equal(read(file, None, by_position=True)[0], [[1, 2], [3, 4]])
        np.testing.assert_array_equal(read(file, ["a", "b"])[0], [[2, 1], [4, 3]])
        np.testing.assert_array_equal(read(file, ["a", "c"], by_position=True)[0], [[1, 2], [3, 4]])
        with pytest.raises(DataError, match="it has no column 'c'"):
            read(file, ["a", "c"])


def test_a_header_of_words_with_an_underscore_is_a_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("2020_01,2020_02\n1,2\n")
    np.testing.assert_array_equal(read(tmp_path / "t.csv", None, by_position=True)[0], [[1, 2]])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_is_read_in_parts_as_in_training(save: Any, order: Any, tmp_path: Path) -> None:
    x = np.arange(20, dtype=np.float64).reshape(10, 2)
    save(tmp_path / "t.npz", x=np.asarray(x, order=order), y=np.zeros(10))
    found, errors = read(tmp_path / "t.npz")
    np.testing.assert_array_equal(found, x)
    assert errors == [None] * 10
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)  # channels last
    save(tmp_path / "i.npz", images=np.asarray(images, order=order))
    blocks = list(rows.read(str(tmp_path / "i.npz"), rows.Wanted((3, 8, 6), np.dtype("uint8"), None), 2))
    np.testing.assert_array_equal(np.concatenate([values for values, _ in blocks]), images.transpose(0, 3, 1, 2))


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nope", "it is no whole .npz file"),
        (npz(x=np.ones((3, 2)))[:-40], "it is no whole .npz file"),
        (npz(a=np.ones((3, 2)), b=np.ones((3, 2))), "it has no array x; it holds a, b"),
        (npz(x=np.ones((3, 5))), "its samples are float32 5, but the model takes float32 2"),
        (npz(x=np.array([{}, {}])), "Python objects in x.npy; save numbers or text, not objects"),
        (npz(x=np.float32(1)), "x holds one number; save rows of numbers"),
        (npz(x=np.array(["a", "b"])), "x is <U1 (0,); it must hold numbers"),
        (npz(x=np.ones((3, 2)), features=["a"]), "features is <U1 (1,), and x holds 2 columns; it must be a text for"),
        (npz(x=np.ones((3, 2)), features=["a", "b", "c"]), "features is <U1 (3,), and x holds 2 columns"),
        (npz(x=np.ones((3, 2)), features=["a", "a"]), "features has the name 'a' 2 times"),
        (npz(x=np.ones((3, 2)), features=[1, 2]), "features is int64 (2,)"),
        (npz(x=np.ones((3, 2)), y=np.ones(3)).replace(b"'shape': (3, 2)", b"'shape': (9, 2)"), "no whole .npz file"),
    ],
)
def test_an_npz_that_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(DataError) as raised:
        read(tmp_path / "t.npz")
    assert message in str(raised.value)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"b": [2, 4, 6, 8], "word": ["x"] * 4, "a": [1.0, None, 5.0, 7.0]})
    parquet.write_table(table, tmp_path / "t.parquet")
    values, errors = read(tmp_path / "t.parquet", ["a", "b"])
    assert errors == [None, "column 'a' is nan", None, None]
    np.testing.assert_array_equal(values[[0, 2, 3]], [[1, 2], [5, 6], [7, 8]])
    for features, message in (
        (["a", "c"], "it has no column 'c'"),
        (["a", "word"], "column 'word' holds string, not numbers"),
        (None, "it has 3 columns, but the model takes 2 features"),
    ):
        with pytest.raises(DataError) as raised:
            read(tmp_path / "t.parquet", features)
        assert message in str(raised.value)
    (tmp_path / "bad.parquet").write_bytes(b"nope")
    with pytest.raises(DataError, match="no whole Parquet file"):
        read(tmp_path / "bad.parquet")


def test_batches_keep_the_order_and_number_the_rows_of_each_table(tmp_path: Path) -> None:
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([[1, 2], [3], [5, 6]])
    (tmp_path / "b.csv").write_text("1\n")
    np.savez(tmp_path / "c.npz", x=np.ones((1, 2)))
    names = [str(tmp_path / name) for name in ("a.csv", "b.csv", "c.npz")]
    batches = list(inputs.read(names, model_input((2,)), 2, 0))
    assert [name for batch in batches for name in batch.names] == [names[0]] * 3 + names[1:]
    assert [row for batch in batches for row in batch.rows] == [0, 1, 2, None, 0]
    errors = [error for batch in batches for error in batch.errors]
    assert errors == [None, "1 cells instead of 2", None, "it has 1 columns, but the model takes 2 features", None]
    good = np.concatenate([batch.values for batch in batches])
    np.testing.assert_array_equal(good, [[1, 2], [5, 6], [1, 1]])
