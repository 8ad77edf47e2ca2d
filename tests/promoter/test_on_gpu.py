"""What the library computes on a GPU, beside the CPU; needs no Ray. The jobs: `tests/jobs/test_jobs_on_gpu.py`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promoter.attribution import attribute
from promoter.ism import forward_passes, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.models.config import PretrainedConfig
from promoter.models.external import ExternalModel
from promoter.models.pretrained import PretrainedModel, embed
from promoter.models.trunk import Trunk
from promoter.sequence import one_hot
from promoter.training import Examples, TrainingConfig, evaluate, fit, predict

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, there is none"),
]
PUBLISHED = CNNConfig()
SMALL = CNNConfig((32, 16, 16), (7, 3, 3), (8, 4))
CONFIGS = {
    "published": PUBLISHED,
    "several targets": replace(PUBLISHED, n_targets=3),
    "bins": replace(SMALL, bins=5),
    "both strands": replace(SMALL, bins=5, both_strands=True, crop=500),
    "strands apart": replace(SMALL, bins=5, both_strands=True, keep_strands=True),
}


@pytest.fixture(params=["TF32 as by default", "TF32 everywhere"])
def tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    """PyTorch's default, TF32 in convolutions alone, and what some images set."""
    before = torch.get_float32_matmul_precision()
    if request.param == "TF32 everywhere":
        torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def network(config: CNNConfig = PUBLISHED) -> tuple[PromoterCNN, np.ndarray]:
    """Random weights with statistics of random sequences; sequences with N at an end and within."""
    torch.manual_seed(0)
    model = PromoterCNN(config)
    tokens = np.random.default_rng(0).integers(0, 4, (3, 700), dtype=np.uint8)
    tokens[1, 600:640] = 4
    tokens[2, :30] = 4
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(one_hot(tokens))
    return model.eval(), tokens


def exact_scores(model: PromoterCNN, tokens: np.ndarray, positions: tuple[int, int]) -> np.ndarray:
    """Score by whole passes in float64 on the CPU."""
    double = copy.deepcopy(model).cpu().double()
    return forward_passes.score_substitutions(double, torch.from_numpy(tokens), positions=positions).numpy()


@pytest.mark.parametrize("positions", [(0, 4), (330, 350), (696, 700)])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.usefixtures("tf32")
def test_scores_on_a_gpu_are_exact(config: CNNConfig, positions: tuple[int, int]) -> None:
    """To 1e-5 of a sequence's largest |score|; and the self-check finds that the engine suits (it would warn)."""
    model, tokens = network(config)
    scores = saturation_mutagenesis(model, tokens, device="cuda")
    largest = np.abs(scores).max(axis=(2, 3), keepdims=True)
    start, end = positions
    error = np.abs(scores[..., start:end] - exact_scores(model, tokens, positions))
    assert (error <= 1e-5 * largest).all()


@pytest.mark.usefixtures("tf32")
def test_predictions_and_metrics_on_a_gpu_are_those_of_the_cpu() -> None:
    model, tokens = network()
    targets = np.random.default_rng(1).normal(size=(3, 1)).astype(np.float32)
    expected = predict(model, tokens), evaluate(model, Examples(tokens, targets)).mse
    model.to("cuda")
    np.testing.assert_allclose(predict(model, tokens), expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(evaluate(model, Examples(tokens, targets)).mse, expected[1], rtol=1e-4)


@pytest.mark.usefixtures("tf32")
def test_embeddings_on_a_gpu_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(
        torch.nn.Conv1d(4, 64, 15, padding=7), torch.nn.Flatten(), torch.nn.Linear(64 * 512, 32)
    )
    bins = torch.nn.Sequential(trunk, torch.nn.Unflatten(1, (1, 32)))
    model = PretrainedModel(PretrainedConfig("enformer", tss_bins=1), Trunk(bins, [bins], 32), {}).eval()
    tokens = np.random.default_rng(0).integers(0, 5, (4, 512), dtype=np.uint8)
    expected = embed(model, tokens, device="cpu", both_strands=True)
    found = embed(model.to("cuda"), tokens, device="cuda", both_strands=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_another_model_scores_on_a_gpu_as_on_the_cpu() -> None:
    pytest.importorskip("tangermeme")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Conv1d(4, 32, 15, padding=7), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool1d(1)),
        *(torch.nn.Flatten(), torch.nn.Linear(32, 2)),
    )
    tokens = np.random.default_rng(0).integers(0, 5, (3, 200), dtype=np.uint8)
    expected = saturation_mutagenesis(model, tokens)
    found = saturation_mutagenesis(model, tokens, device="cuda")
    # differences of float32 predictions of order 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "deeplift"])
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.filterwarnings("ignore::promoter.errors.InputWarning")  # of 20 steps of a network of random weights
@pytest.mark.usefixtures("tf32")
def test_attributions_on_a_gpu_are_those_of_the_cpu(method: Any, external: bool) -> None:
    model, tokens = network()
    given = ExternalModel(model) if external else model
    on_cpu, on_gpu = (attribute(given, tokens, method=method, device=device) for device in ("cpu", "cuda"))
    largest = np.abs(on_cpu).max(axis=(2, 3), keepdims=True)
    # float32 decides on which side of a ReLU or a maximum a point of the path lies: 5e-4 off float64 on a CPU too
    tolerance = 2e-3 if method == "integrated_gradients" else 1e-4
    assert (np.abs(on_gpu - on_cpu) < tolerance * largest).all()


def test_bf16_on_a_gpu_is_off_by_a_few_hundredths_of_the_largest_score() -> None:
    model, tokens = network()
    expected = saturation_mutagenesis(model, tokens)
    found = saturation_mutagenesis(model, tokens, device="cuda", precision="bf16")
    assert np.abs(found - expected).max() <= 5e-2 * np.abs(expected).max()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_full_gpu_is_answered_by_smaller_batches() -> None:
    model, tokens = network()
    expected = saturation_mutagenesis(model, tokens)
    free = torch.cuda.mem_get_info()[0]
    hog = torch.empty(max(0, free - (400 << 20)), dtype=torch.uint8, device="cuda")
    try:
        found = saturation_mutagenesis(model, tokens, device="cuda", batch_size=1 << 16)
    finally:
        del hog
        torch.cuda.empty_cache()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports on this machine
@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16"}, {"mixup": 0.2}, {"compile": True}],
    ids=["fp32", "bf16", "mixed", "compiled"],
)
def test_fit_on_a_gpu_learns_as_on_a_cpu(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, (256, 100), dtype=np.uint8)
    targets = (tokens == 2).mean(axis=1, keepdims=True).astype(np.float32)  # G content
    learned, validated = Examples(tokens[:200], targets[:200]), Examples(tokens[200:], targets[200:])
    r = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = PromoterCNN(CNNConfig((16, 16), (7, 3), (4,)), length=100)
        config = TrainingConfig(
            epochs=8, batch_size=16, learning_rate=3e-3, **(settings if device == "cuda" else {})
        )
        state = fit(model, learned, validated, config=config, device=device)
        r[device] = max(record["val_pearson"] for record in state.history)
    assert r["cuda"] == pytest.approx(r["cpu"], abs=0.05)
