"""BitLinear against NumPy, the experiment from its seed, and the exported file in llama.cpp."""

import itertools
from contextlib import closing

import numpy as np
import pytest
import torch

from labkit import engines, models
from labkit.core.errors import BadInput
from labkit.models import inspect
from labkit.quant import blocks, energy, ternary
from labkit.quant.torch_llama import Llama, Shape

SMALL = Shape(vocab=257, hidden=256, layers=1, heads=4, kv_heads=2, ff=512, context=512)


def in_numpy(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The layer as the paper writes it, in float64 and whole numbers: x [tokens, inputs], w [outputs, inputs]."""
    weight_scale = np.abs(w).mean()
    trits = np.clip(np.round(w / weight_scale), -1, 1).astype(int)
    token_scale = np.abs(x).max(axis=1, keepdims=True) / 127
    eight_bits = np.round(x / token_scale).astype(int)
    assert np.abs(eight_bits).max() == 127
    return (eight_bits @ trits.T) * token_scale * weight_scale


@pytest.fixture
def layer() -> ternary.BitLinear:
    torch.manual_seed(1)
    return ternary.BitLinear(256, 64)


@pytest.mark.parametrize("spread", [0.01, 1.0, 300.0])
def test_the_layer_is_what_numpy_computes(layer, spread):
    x = torch.randn(7, 256) * spread
    expected = in_numpy(x.numpy().astype(np.float64), layer.weight.detach().numpy().astype(np.float64))
    # float32 adds 256 numbers with an error of some 1e-7 of the largest
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_each_token_has_its_own_scale(layer):
    x = torch.randn(2, 5, 256)
    louder = x.clone()
    louder[0, 0] *= 1000
    torch.testing.assert_close(layer(louder)[0, 1:], layer(x)[0, 1:])


@pytest.mark.parametrize(
    ("weights", "values", "scale"),
    [
        ([[0.4, -1.2, 0.1, 2.3]], [[0, -1, 0, 1]], 1.0),
        ([[1.0, 1.0], [1.0, 1.0]], [[1, 1], [1, 1]], 1.0),
        ([[0.0, 0.0]], [[0, 0]], 1e-5),  # no division by zero
        ([[-3.0, 1.0], [1.0, 1.0]], [[-1, 1], [1, 1]], 1.5),
    ],
)
def test_absmean(weights, values, scale):
    found, found_scale = ternary.absmean(torch.tensor(weights))
    assert found.tolist() == values
    assert float(found_scale) == pytest.approx(scale)


def test_the_gradient_goes_straight_through(layer):
    x = torch.randn(3, 256, requires_grad=True)
    ahead = torch.randn(3, 64)
    layer(x).backward(ahead)
    values, scale = ternary.absmean(layer.weight.detach())
    step = x.detach().abs().amax(-1, keepdim=True) / 127
    # as if the rounded numbers were the weights and the activations themselves
    torch.testing.assert_close(x.grad, ahead @ (values * scale))
    torch.testing.assert_close(layer.weight.grad, ahead.T @ ((x.detach() / step).round() * step))


def test_afterwards_has_the_same_weights_and_another_result():
    torch.manual_seed(1)
    model = Llama(SMALL)
    other = ternary.ternary_afterwards(model)
    tokens = torch.arange(20)[None]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert not torch.allclose(model(tokens), other(tokens), atol=1e-3)


def test_the_text_is_held_out():
    train, held = ternary.pieces()
    chunks = {bytes(row.tolist()) for row in train}
    assert not any(bytes(row.tolist()) in chunks for row in held)
    windows = ternary.held_out_windows(held)
    assert windows.shape == (32, ternary.WINDOW + 1)
    assert windows[:, 0].eq(ternary.END).all()
    whole = b"".join(bytes(row.tolist()) for row in held)
    assert all(bytes(w[1:].tolist()) in whole for w in windows)
    assert len({tuple(w.tolist()) for w in windows}) == 32


def test_same_seed_same_numbers_and_another_seed_others():
    """On one machine, with one torch: alone, side by side and from any number of threads. torch's own state stays as it was."""
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    alone = ternary.experiment([3], steps=6, workers=1)
    together = ternary.experiment([4, 3], steps=6, workers=4)
    assert [row for row in together if row["seed"] == 3] == alone
    assert [row | {"seed": 3} for row in together if row["seed"] == 4] != alone
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_one_that_fails_stops_the_others(monkeypatch):
    steps = []

    def fails(form, seed, count, watch):
        for step in range(1, 1000):
            steps.append(step)
            watch(step + 1, None)
            if form == ternary.FULL and step == 3:
                raise RuntimeError("out of memory")

    monkeypatch.setattr(ternary, "train", fails)
    monkeypatch.setattr(ternary, "EVALUATE_EVERY", 10**9)
    with pytest.raises(RuntimeError, match="out of memory"):
        ternary.experiment([1], steps=10**6)
    assert len(steps) < 1900


@pytest.fixture(scope="module")
def trained() -> tuple[list[dict], dict[str, Llama]]:
    kept: dict[str, Llama] = {}
    rows = ternary.experiment([1], quick=True, keep=lambda form, seed, model: kept.update({form: model}))
    return rows, kept


def test_a_quick_run_shows_what_a_full_one_does(trained):
    """Trained in ends near full precision (either may be ahead), made ternary afterwards far from both."""
    rows, _ = trained
    loss = {row["form"]: row["loss"] for row in rows if row["kind"] == "final"}
    assert set(loss) == set(ternary.FORMS)
    assert loss[ternary.TRAINED_IN] < 1.1 * loss[ternary.FULL]
    assert loss[ternary.AFTERWARDS] > 1.15 * max(loss[ternary.FULL], loss[ternary.TRAINED_IN])
    assert loss[ternary.FULL] < 2.1  # it has learned more than which letters follow each other: a blind guess has 5.55
    assert all(row["step"] == ternary.QUICK_STEPS for row in rows if row["kind"] == "final")


def test_the_curves_go_down_on_the_same_steps(trained):
    rows, _ = trained
    steps = {form: [r["step"] for r in rows if (r["kind"], r["form"]) == ("curve", form)] for form in ternary.FORMS}
    assert len({tuple(s) for s in steps.values()}) == 1
    for form in (ternary.FULL, ternary.TRAINED_IN):
        losses = [r["loss"] for r in rows if (r["kind"], r["form"]) == ("curve", form)]
        assert losses[-1] < losses[0] - 2


def expected_logs(model: Llama, windows: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(windows).flatten(0, 1).double().log_softmax(-1).numpy()


@pytest.mark.parametrize(
    ("form", "kind", "tolerance"),
    [
        # llama.cpp keeps the KV cache in 16 bits, and rounds activations to 8 bits in groups of 256 (Q8_K)
        (ternary.TRAINED_IN, "TQ2_0", 2e-3),
        (ternary.TRAINED_IN, "TQ1_0", 2e-3),
        (ternary.AFTERWARDS, "TQ2_0", 2e-3),
        (ternary.FULL, "F16", 1e-4),
    ],
)
def test_the_file_agrees_with_torch(trained, tmp_path, form, kind, tolerance):
    kept = trained[1] | {ternary.AFTERWARDS: trained[1][ternary.FULL]}
    path = ternary.export(kept[form], tmp_path / "model.gguf", kind)
    windows = ternary.held_out_windows(ternary.pieces()[1], 4)[:, :-1]
    expected = expected_logs(ternary.ternary_afterwards(kept[form]) if form == ternary.AFTERWARDS else kept[form], windows)
    with closing(engines.open("llamacpp").load(models.resolve(path), threads=1, context=256)) as session:
        logits = np.concatenate([np.stack(list(session.logits(w.tolist()))) for w in windows]).astype(np.float64)
    found = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
    divergence = (np.exp(expected) * (expected - found)).sum(-1)
    assert divergence.mean() < tolerance
    assert (expected.argmax(-1) == found.argmax(-1)).mean() > 0.97


@pytest.mark.parametrize("kind", energy.TERNARY)
def test_the_file_holds_the_trained_values(tmp_path, kind):
    torch.manual_seed(2)
    model = Llama(SMALL, linear=ternary.BitLinear)
    path = ternary.export(model, tmp_path / "model.gguf", kind)
    found = {t.name: t for t in inspect.read(path).tensors}
    data = path.read_bytes()
    from gguf import GGUFReader

    read = {t.name: t for t in GGUFReader(path).tensors}
    assert len(data) == path.stat().st_size
    for name, parameter in model.named_parameters():
        if not name.startswith("blk.") or parameter.ndim == 1:
            continue
        assert found[name].type == kind
        values, scale = ternary.absmean(parameter.detach())
        stored = blocks.decode(kind, np.array(read[name].data)).reshape(parameter.shape)
        assert set(np.unique(np.sign(stored))) == {-1, 0, 1}
        assert len(np.unique(np.abs(stored[stored != 0]))) == 1
        np.testing.assert_array_equal(np.sign(stored), values.numpy())
        np.testing.assert_allclose(np.abs(stored).max(), float(scale), rtol=2**-11)


def test_any_byte_is_a_token_of_its_own(trained, tmp_path):
    path = ternary.export(trained[1][ternary.TRAINED_IN], tmp_path / "model.gguf")
    text = "Opticks, 1704: naïve § é\n\tx = 3\x00\x7f"
    with closing(engines.open("llamacpp").load(models.resolve(path), threads=1, context=256)) as session:
        assert session.tokenize(text) == list(text.encode())
        assert session.detokenize(list(text.encode())) == text
        assert session.tokenize("a", bos=True) == [ternary.END, ord("a")]


def test_export_refuses_an_unknown_kind(tmp_path):
    with pytest.raises(BadInput, match="TQ3_0"):
        ternary.export(Llama(SMALL), tmp_path / "model.gguf", "TQ3_0")
    assert not list(tmp_path.iterdir())


def test_the_rate_climbs_and_falls():
    recipe = ternary.Recipe(0.01, spread=1, warm_up=10)
    rates = [recipe.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == rates[9] == pytest.approx(0.01 * 0.91)
    assert all(a > b for a, b in itertools.pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(0.0001)
