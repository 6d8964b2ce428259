"""The small data sets that come inside scikit-learn: no download.

Their files are read with NumPy, because importing scikit-learn takes 1.5 s, longer than training on them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from trainkit.data.dataset import Data, describe_input, hold_out
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Array, Split
from trainkit.errors import DataError
from trainkit.registry import register
from trainkit.schema import Fraction

# Names of the columns, as scikit-learn has them.
_IRIS = [f"{part} {side} (cm)" for part in ("sepal", "petal") for side in ("length", "width")]
_WINE = [
    *("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids"),
    *("nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline"),
]
_NUCLEUS = [
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
]
_BREAST_CANCER = [pattern.format(name) for pattern in ("mean {}", "{} error", "worst {}") for name in _NUCLEUS]
_DIABETES = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]


@register("dataset")
def digits(data_dir: Path, split_seed: int, *, test_fraction: Fraction = 0.2) -> Data:
    """1,797 handwritten digits: uint8 (N, 1, 8, 8), the file's 17 gray levels spread over 0..255; 10 classes."""
    import numpy as np

    table = _read("digits.csv.gz", delimiter=",")
    levels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)
    train = Split(levels.reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64))
    target = TargetSpec("classification", classes=[str(digit) for digit in range(10)])
    data = Data("digits", {"train": train}, target)
    hold_out(data, "test", test_fraction, split_seed)
    return data


@register("dataset")
def wine(data_dir: Path, split_seed: int, *, test_fraction: Fraction = 0.2) -> Data:
    """178 wines: 13 chemical measurements, float32 (N, 13); 3 classes."""
    classes = ["class_0", "class_1", "class_2"]
    return _classified("wine", "wine_data.csv", _WINE, classes, test_fraction, split_seed)


@register("dataset")
def breast_cancer(data_dir: Path, split_seed: int, *, test_fraction: Fraction = 0.2) -> Data:
    """569 tumors: 30 measurements of cell nuclei, float32 (N, 30); malignant or benign."""
    classes = ["malignant", "benign"]
    return _classified("breast_cancer", "breast_cancer.csv", _BREAST_CANCER, classes, test_fraction, split_seed)


@register("dataset")
def iris(data_dir: Path, split_seed: int, *, test_fraction: Fraction = 0.2) -> Data:
    """150 flowers: 4 lengths and widths in cm, float32 (N, 4); 3 species."""
    classes = ["setosa", "versicolor", "virginica"]
    return _classified("iris", "iris.csv", _IRIS, classes, test_fraction, split_seed)


@register("dataset")
def diabetes(data_dir: Path, split_seed: int, *, test_fraction: Fraction = 0.2) -> Data:
    """442 patients: 10 raw measurements, float32 (N, 10); regression of disease progression, (N, 1)."""
    import numpy as np

    features = _read("diabetes_data_raw.csv.gz").astype(np.float32)
    targets = _read("diabetes_target.csv.gz").astype(np.float32).reshape(-1, 1)
    train = Split(features, targets)
    target = TargetSpec("regression", standardize=True)
    data = Data("diabetes", {"train": train}, target, describe_input(features, names=list(_DIABETES)))
    hold_out(data, "test", test_fraction, split_seed)
    return data


def _classified(
    name: str, file: str, features: list[str], classes: list[str], test_fraction: float, split_seed: int
) -> Data:
    import numpy as np

    table = _read(file, delimiter=",", skiprows=1)
    train = Split(table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64))
    inputs = describe_input(train.inputs, names=list(features))
    data = Data(name, {"train": train}, TargetSpec("classification", classes=classes), inputs)
    hold_out(data, "test", test_fraction, split_seed)
    return data


def _read(file: str, delimiter: str | None = None, skiprows: int = 0) -> Array:
    """A bundled table as float64 (rows, columns). Raises DataError when scikit-learn does not have it."""
    import numpy as np

    package = importlib.util.find_spec("sklearn")  # finds the package without importing it
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise DataError("scikit-learn, which brings this data set, is not installed; run pip install scikit-learn")
    path = Path(folders[0], "datasets", "data", file)
    try:
        return np.loadtxt(path, delimiter=delimiter, skiprows=skiprows)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); reinstall scikit-learn") from error
