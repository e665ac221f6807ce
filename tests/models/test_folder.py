"""Model folders: what is saved comes back; whatever is wrong with one is a ModelError of one line."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from yozora.errors import ModelError
from yozora.models import folder as folder_module
from yozora.models.autoencoder import Autoencoder, AutoencoderConfig
from yozora.models.folder import load_module, save_module
from yozora.models.text import TextEncoder, TextEncoderConfig, train_tokenizer
from yozora.models.transformer import Transformer, TransformerConfig

TINY = TransformerConfig(channels=4, width=24, depth=2, heads=2, text_width=16, freq_dim=16)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_module(Transformer(TINY), tmp_path / "model")
    return tmp_path / "model"


def test_what_is_saved_comes_back(saved: Path, tmp_path: Path) -> None:
    module = load_module(Transformer, saved)
    assert module.config == TINY and not module.training
    save_module(module, tmp_path / "again")
    for path in saved.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert json.loads((saved / "config.json").read_text())["class"] == "Transformer"


def test_parameters_change_type_and_buffers_do_not(tmp_path: Path) -> None:
    config = AutoencoderConfig(4, (8, 8, 8), (1, 1, 1), (8, 8, 8), (1, 1, 1))
    autoencoder = Autoencoder(config)
    autoencoder.norm.mean.fill_(0.123456)
    save_module(autoencoder, tmp_path, torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["norm.mean"].dtype == torch.float32
    assert {t.dtype for name, t in stored.items() if not name.startswith("norm.")} == {torch.bfloat16}
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_module(Autoencoder, tmp_path, dtype=dtype)
        assert {p.dtype for p in loaded.parameters()} == {dtype}
        assert torch.equal(loaded.norm.mean, autoencoder.norm.mean)


def test_a_text_encoder_brings_its_tokenizer(tmp_path: Path) -> None:
    config = TextEncoderConfig(300, width=16, depth=1, heads=2)
    encoder = TextEncoder(config, train_tokenizer(["a red ball"] * 9, 300)).eval()
    save_module(encoder, tmp_path)
    assert torch.equal(load_module(TextEncoder, tmp_path)(["a red ball"])[0], encoder(["a red ball"])[0])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no tokenizer"):
        load_module(TextEncoder, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_module(TextEncoder, tmp_path)


def test_large_weights_are_sharded_and_stale_shards_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Transformer(TINY)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "SHARD_BYTES", 20_000)
        save_module(module, tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and all(path.stat().st_size < 24_000 for path in shards)
    loaded = load_module(Transformer, tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in module.state_dict().items())
    shards[0].rename(tmp_path / "away")
    with pytest.raises(ModelError, match=r"00001-of-.*is missing"):
        load_module(Transformer, tmp_path)
    (tmp_path / "away").unlink()
    save_module(module, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def edit_config(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        config = {**json.loads((folder / "config.json").read_text()), **changes}
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def pickled(name: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({"x": torch.ones(1)}, folder / name)

    return edit


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def index_of(weight_map: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "safetensors is missing"),
    "config is no JSON": (bytes_of("config.json", lambda b: b[:20]), "not valid JSON"),
    "config is not text": (bytes_of("config.json", lambda b: b"\xff\xfe\x00" * 9), "not valid JSON"),
    "config is a list": (bytes_of("config.json", lambda b: b"[1]"), "not a JSON object"),
    "config is deep": (bytes_of("config.json", lambda b: b"[" * 200_000), "not valid JSON"),
    "another class": (edit_config(**{"class": "Autoencoder"}), "describes Autoencoder"),
    "no class": (edit_config(**{"class": "absent"}), "another program"),
    "unknown field": (edit_config(colour=3), "does not know colour"),
    "missing field": (edit_config(width="absent"), "needs width"),
    "wrong type": (edit_config(width="wide"), "width"),
    "impossible value": (edit_config(heads=5), "5 heads"),
    "great depth": (edit_config(depth=1000), "depth is 1000, and nothing in the weights is larger than 256"),
    "endless depth": (edit_config(depth=100_000), "depth must be from 1 to 1024"),
    "endless width": (edit_config(width=10**9, heads=1), "width must be from 1 to 65536"),
    "width beyond numbers": (edit_config(width=2 * 10**399, heads=1, ffn=1), "width must be from 1 to 65536"),
    "endless ffn": (edit_config(ffn=1e17), "ffn must be positive and at most 64"),
    "infinite ffn": (edit_config(ffn=1e999), "ffn must be positive and at most 64"),
    "empty weights": (bytes_of("model.safetensors", lambda b: b""), "broken or truncated"),
    "truncated weights": (bytes_of("model.safetensors", lambda b: b[:-9]), "broken or truncated"),
    "truncated header": (bytes_of("model.safetensors", lambda b: b[:50]), "broken or truncated"),
    "garbage weights": (bytes_of("model.safetensors", lambda b: b"\x00" * len(b)), "broken or truncated"),
    "zip pickle inside": (bytes_of("model.safetensors", lambda b: b"PK\x03\x04" + b), "pickle"),
    "pickle inside": (bytes_of("model.safetensors", lambda b: pickle.dumps({"x": 1})), "pickle"),
    "pickle instead": (pickled("pytorch_model.bin"), "is a pickle"),
    "checkpoint instead": (pickled("last.ckpt"), "is a pickle"),
    "other sizes": (edit_config(channels=8), "different models"),
    "fewer blocks": (edit_config(depth=1), "have unknown"),
    "more blocks": (edit_config(depth=3), "lack"),
    "missing tensor": (edit_weights(lambda t: t.pop("head.out.bias")), "lack head.out.bias"),
    "extra tensor": (edit_weights(lambda t: t.update(extra=torch.ones(1))), "have unknown extra"),
    "wrong shape": (edit_weights(lambda t: t.update({"head.out.bias": torch.ones(2)})), "head.out.bias"),
    "index of another place": (index_of({"x": "../model.safetensors"}), "refused"),
    "index of pickles": (index_of({"x": "model.bin"}), "refused"),
    "index of numbers": (index_of({"x": 3}), "weight_map"),
    "index without a map": (index_of(None), "weight_map"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_folders(saved: Path, what: str) -> None:
    damage, message = BROKEN[what]
    damage(saved)
    with pytest.raises(ModelError, match=message) as caught:
        load_module(Transformer, saved)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "sizes",
    [{"depth": 10**6}, {"width": 10**9}, {"vocab_size": 10**12}, {"max_tokens": 10**6}, {"ffn": 1e999}, {"ffn": 0.0}],
)
def test_text_encoders_that_no_machine_could_hold(sizes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(sizes))):
        TextEncoderConfig(**sizes)


@pytest.mark.parametrize(
    "sizes", [{"channels": 10**9}, {"encoder_depths": (1, 1, 10**6)}, {"decoder_widths": (2**20,) * 3}]
)
def test_autoencoders_that_no_machine_could_hold(sizes: dict) -> None:
    with pytest.raises(ValueError, match=r"between [01] and"):
        AutoencoderConfig(**sizes)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load_module(Transformer, tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write"):
        save_module(Transformer(TINY), tmp_path / "file")


FULL = """
import resource, sys
from yozora.errors import ModelError
from yozora.models.folder import load_module, save_module
from yozora.models.transformer import Transformer

model = load_module(Transformer, sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_module(model, sys.argv[1])
except ModelError as error:
    print(error)
"""


def test_weights_for_which_there_is_no_room_leave_those_that_were_there(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL, str(saved)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"cannot write {saved} (File too large); choose a folder you may write to, with room for it\n"
    assert before == {path.name: path.read_bytes() for path in saved.iterdir()}


def test_int8_kernels_come_back_as_nearly_the_same_and_are_stored_the_same_again(tmp_path: Path) -> None:
    small = AutoencoderConfig(channels=4, encoder_widths=(4, 8, 8), decoder_widths=(4, 8, 8))
    autoencoder = Autoencoder(small)
    for parameter in autoencoder.parameters():
        torch.nn.init.normal_(parameter)
    save_module(autoencoder, tmp_path / "a", torch.int8)
    loaded = load_module(Autoencoder, tmp_path / "a")
    kernels = 0
    for (name, before), after in zip(autoencoder.named_parameters(), loaded.parameters(), strict=True):
        if before.ndim == 4:
            kernels += 1
            bound = before.abs().amax((1, 2, 3), keepdim=True) / 253
            assert (before - after).abs().max() > 0 and ((before - after).abs() <= bound).all(), name
    assert kernels > 10
    save_module(loaded, tmp_path / "b", torch.int8)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first if first[name].dtype == torch.int8)


def test_int8_matrices_come_back_as_nearly_the_same_floats(tmp_path: Path) -> None:
    transformer = Transformer(TINY)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter)
    save_module(transformer, tmp_path, torch.int8)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["patch.weight"].dtype == torch.int8
    assert stored["patch.bias"].dtype == torch.bfloat16
    loaded = load_module(Transformer, tmp_path)
    for (name, before), after in zip(transformer.named_parameters(), loaded.parameters(), strict=True):
        if before.ndim == 2:
            bound = before.abs().amax(1, keepdim=True) / 253
            assert ((before - after).abs() <= bound).all(), name
    del stored["patch.weight.scale_of_rows"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="lack a scale"):
        load_module(Transformer, tmp_path)
