"""Memory forecast: what a model will occupy and whether that fits, before it is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.backends.scripted import ResidentScriptedBackend
from qwen_vl_suite.qwenvl.checkpoints.catalogue import CATALOGUE
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED, Download
from qwen_vl_suite.qwenvl.errors import BadOption, Unavailable, UnsupportedModel
from qwen_vl_suite.qwenvl.models import footprint
from qwen_vl_suite.qwenvl.models.forecast import DeviceMemory, Forecast, forecast
from qwen_vl_suite.qwenvl.types import LocalSpec, Place

GB = 10**9
LARGE = "Qwen/Qwen3-VL-32B-Instruct"


def forecast_of(
    place: Path | Download, free: int = 1000, movable: int = 0, **spec: str
) -> Forecast:
    """The forecast with so many GB ``free`` and ``movable``."""
    path = "" if isinstance(place, Download) else str(place)
    memory = DeviceMemory("cpu", free * GB, movable * GB, 1000 * GB)
    return forecast(place, LocalSpec(path, **{"device": "cpu", **spec}), memory)


def test_a_checkpoint_on_disk() -> None:
    found = forecast_of(BUNDLED, precision="fp32")
    assert (found.name, found.availability, found.loaded, found.fits) == ("nano", "here", "", "now")
    spec = LocalSpec(str(BUNDLED), "fp32", device="cpu")
    assert found.weights == footprint.estimated_bytes(BUNDLED, spec)
    assert (found.device, found.free, found.total) == ("cpu", 1000 * GB, 1000 * GB)


@pytest.mark.parametrize(
    ("place", "loaded", "fits"),
    [("disk", "", "no"), ("ram", "ram", "no"), ("device",) * 2 + ("now",)],
)
def test_a_loaded_model_is_measured_and_fits_where_it_is(
    place: Place, loaded: str, fits: str
) -> None:
    backend = ResidentScriptedBackend(place=place, size=12345)
    memory = DeviceMemory("cpu", 0, 0, GB)
    found = forecast(BUNDLED, LocalSpec(str(BUNDLED), device="cpu"), memory, [backend])
    assert (found.loaded, found.fits) == (loaded, fits)
    assert (found.weights == 12345) == (place != "disk")


@pytest.mark.parametrize(
    ("free", "movable", "fits", "lighter"),
    [
        pytest.param(80, 0, "now", "", id="enough free"),
        pytest.param(5, 75, "after others", "", id="once others are moved out"),
        pytest.param(67, 0, "no", "8bit", id="the weights alone leave no room for the work"),
        pytest.param(30, 10, "no", "8bit", id="8bit would fit"),
        pytest.param(20, 5, "no", "4bit", id="only 4bit would"),
        pytest.param(10, 0, "no", "", id="nothing would"),
    ],
)
def test_what_fits(tmp_path: Path, free: int, movable: int, fits: str, lighter: str) -> None:
    found = forecast_of(Download(LARGE, tmp_path), free, movable, precision="bf16")
    assert (found.fits, found.lighter) == (fits, lighter)


def test_a_download_is_reduced_by_what_is_here(tmp_path: Path) -> None:
    place = Download(LARGE, tmp_path)
    found = forecast_of(place)
    assert (found.name, found.availability) == ("Qwen3-VL-32B-Instruct", "download")
    assert (found.partial, found.to_download) == (False, CATALOGUE[LARGE].nbytes)
    place.folder.mkdir()
    (place.folder / "model-00001-of-00014.safetensors.part").write_bytes(bytes(500))
    found = forecast_of(place)
    assert (found.partial, found.to_download) == (True, CATALOGUE[LARGE].nbytes - 500)


def test_an_incomplete_checkpoint_says_what_it_lacks(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "mine")
    (folder / "model.safetensors").unlink()
    found = forecast_of(folder)
    assert (found.name, found.availability, found.weights) == ("mine", "incomplete", None)
    assert found.problem == "model.safetensors is missing"


def test_what_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "mine")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(UnsupportedModel, match=r"mine: .*a model and an adapter"):
        forecast_of(folder)
    with pytest.raises(Unavailable, match=r"4bit is not for FP8 editions"):
        forecast_of(Download(f"{LARGE}-FP8", tmp_path), quantization="4bit")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"quantization": "3bit"}, "use one of none, 8bit, 4bit"),
        ({"precision": "fp12"}, "use one of auto, bf16"),
        ({"attention": "paid"}, "use one of auto, sdpa"),
    ],
    ids=str,
)
def test_options_outside_their_set_are_refused(option: dict[str, str], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        forecast_of(BUNDLED, **option)


# Counted from the shapes of the real models, as ``estimated_bytes`` counts them, in GB.
SIZES = {
    ("Qwen3-VL-2B-Instruct", "bf16"): (4.26, 2.81, 2.17),
    ("Qwen3-VL-4B-Instruct", "bf16"): (8.88, 5.26, 3.67),
    ("Qwen3-VL-8B-Instruct", "bf16"): (17.53, 10.6, 7.55),
    ("Qwen3-VL-8B-Instruct", "fp32"): (35.07, 14.24, 11.19),
    ("Qwen3-VL-32B-Instruct", "bf16"): (66.71, 35.5, 21.85),
}


@pytest.mark.parametrize(("name", "precision"), SIZES)
def test_sizes_of_the_catalogue_are_right_within_a_tenth(name: str, precision: str) -> None:
    entry = CATALOGUE[f"Qwen/{name}"]
    for quantization, size in zip(("none", "8bit", "4bit"), SIZES[name, precision], strict=True):
        spec = LocalSpec("", precision, quantization, device="cpu")
        assert footprint.expected_bytes(entry, spec) / GB == pytest.approx(size, rel=0.1)


def test_an_fp8_edition_occupies_the_size_of_its_files() -> None:
    entry = CATALOGUE["Qwen/Qwen3-VL-4B-Instruct-FP8"]
    assert footprint.expected_bytes(entry, LocalSpec("", device="cpu")) == entry.nbytes


def test_a_model_that_only_compares_is_told_before_it_is_here(tmp_path: Path) -> None:
    coming = Download("Qwen/Qwen3-VL-Embedding-2B", tmp_path)
    assert forecast_of(coming).retrieval == "embedding"
    folder = shutil.copytree(BUNDLED, tmp_path / "Qwen3-VL-Reranker-2B")
    assert forecast_of(folder).retrieval == "reranker"
    assert forecast_of(BUNDLED).retrieval == ""
    other = shutil.copytree(BUNDLED, tmp_path / "other")
    (other / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    (other / "1_Pooling").mkdir()
    (other / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    with pytest.raises(UnsupportedModel, match="other makes its vectors in another way"):
        forecast_of(other)
