"""LoRA files: what they add, that they add up, that merged is the same as loaded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import yozora
from yozora.errors import ModelError
from yozora.models.folder import load_module
from yozora.models.lora import Lora, LoraConfig, LoraUse, add_loras, parse_lora, read_lora, write_lora
from yozora.models.registry import load_bundle, merge_loras
from yozora.models.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(channels=4, width=24, depth=2, heads=2, ffn=2.0, text_width=16, patch=(1, 1, 1))


def base_of(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    base = Transformer(CONFIG)
    for parameter in base.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return base.eval()


def lora_of(base: Transformer, seed: int = 1, **settings: object) -> Lora:
    torch.manual_seed(seed)
    lora = Lora(LoraConfig(**{"rank": 3} | settings), base)  # type: ignore[arg-type]
    for parameter in lora.up.values():
        torch.nn.init.normal_(parameter, std=0.2)
    return lora


def answer(transformer: Transformer) -> Tensor:
    random = torch.Generator().manual_seed(5)
    latents, text = torch.randn(2, 4, 3, 4, 4, generator=random), torch.randn(2, 5, 16, generator=random)
    levels = torch.rand(2, 3, generator=random)
    return transformer(latents, levels, text)


def test_a_fresh_one_changes_nothing() -> None:
    base = base_of()
    with Lora(LoraConfig(), base).attached(base):
        changed = answer(base)
    assert torch.equal(changed, answer(base))


@pytest.mark.parametrize("settings", [{}, {"alpha": 6.0}, {"text": False}])
@torch.no_grad()
def test_attached_for_training_is_the_same_as_added_to_the_weights(tmp_path: Path, settings: dict[str, object]) -> None:
    base = base_of()
    lora = lora_of(base, **settings)  # type: ignore[arg-type]
    with lora.attached(base):
        wanted = answer(base)
    assert not torch.allclose(wanted, answer(base), atol=1e-2)
    lora.save(tmp_path / "a.safetensors", "tiny")
    untouched = answer(base)
    loaded = base_of()
    add_loras(loaded, [LoraUse(str(tmp_path / "a.safetensors"))])
    torch.testing.assert_close(answer(loaded), wanted, atol=2e-2, rtol=2e-2)  # the file has 16 bits
    assert torch.equal(answer(base), untouched)  # nothing is left attached
    assert any("text.up" in key for key in load_file(tmp_path / "a.safetensors")) == settings.get("text", True)


def test_gradients_reach_every_part_of_it_and_nothing_else() -> None:
    base = base_of().requires_grad_(False)
    lora = lora_of(base)
    with lora.attached(base):
        answer(base).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in lora.parameters())
    assert all(parameter.grad is None for parameter in base.parameters())


@torch.no_grad()
def test_several_add_up_each_by_its_scale(tmp_path: Path) -> None:
    base = base_of()
    files = [str(tmp_path / f"{n}.safetensors") for n in range(2)]
    for number, file in enumerate(files):
        lora_of(base, seed=number).save(file, "tiny")
    changed = base_of()
    add_loras(changed, [LoraUse(files[0], 0.5), LoraUse(files[1], -2.0)])
    one, two = (read_lora(file) for file in files)
    name = "blocks.1.ffn.up.weight"
    before, after = (dict(each.named_parameters())[name] for each in (base, changed))
    torch.testing.assert_close(after, before + 0.5 * one[name] - 2 * two[name])
    add_loras(changed, [LoraUse(files[0], -0.5), LoraUse(files[1], 2.0)])
    torch.testing.assert_close(dict(changed.named_parameters())[name], before)


def test_the_same_lora_is_the_same_file(tmp_path: Path) -> None:
    """The library writes what a file says of itself in an order of chance."""
    tensors = {f"blocks.0.attn.to_q{end}": torch.ones(4, 4).half() for end in (".lora_A.weight", ".lora_B.weight")}
    about = {"model": "ünï", **{str(n): "x" for n in range(20)}}
    files = [tmp_path / f"{n}.safetensors" for n in range(4)]
    for file in files:
        write_lora(tensors, about, file)
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == about | {"format": "pt"} and opened.get_tensor(next(iter(tensors))).sum() == 16
    assert len({file.read_bytes() for file in files}) == 1


def test_it_is_as_peft_would_have_it(tmp_path: Path) -> None:
    """The file in PEFT's own names and arithmetic: W + alpha / rank · B·A."""
    base = base_of()
    lora = lora_of(base, alpha=6.0)
    lora.save(tmp_path / "a.safetensors", "tiny")
    stored = load_file(tmp_path / "a.safetensors")
    a, b = stored["blocks.0.ffn.up.lora_A.weight"].float(), stored["blocks.0.ffn.up.lora_B.weight"].float()
    assert a.shape == (3, 24) and b.shape == (48, 3)
    torch.testing.assert_close(read_lora(tmp_path / "a.safetensors")["blocks.0.ffn.up.weight"], 2.0 * b @ a)


def test_a_model_with_it_and_a_merged_one_make_the_same(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    lora_of(load_module(Transformer, tiny_model / "transformer")).save(file, "tiny")
    plain = yozora.load(tiny_model, "cpu", torch.float32).generate("a red ball", seed=1)
    generator = yozora.load(tiny_model, "cpu", torch.float32, lora=f"{file}:0.5")
    clip = generator.generate("a red ball", seed=1)
    assert clip.recipe is not None and clip.recipe.lora == [f"{file}:0.5"]
    assert not (clip.frames == plain.frames).all()
    merge_loras(str(tiny_model), [LoraUse(str(file), 0.5)], tmp_path / "merged")
    merged = yozora.load(tmp_path / "merged", "cpu", torch.float32)
    assert merged.bundle.name == "merged"
    weights, wanted = (each.bundle.transformer.state_dict() for each in (merged, generator))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], atol=0.01, rtol=0.01)
    with pytest.raises(ModelError, match="is there already"):
        merge_loras(str(tiny_model), [], tmp_path / "merged")
    with pytest.raises(ModelError, match="is there already"):
        merge_loras(str(tiny_model), [], Path("."))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("C:/a.safetensors", ("C:/a.safetensors", 1.0)),
        ("a:b:-1", ("a:b", -1.0)),
        (":0.5", (":0.5", 1.0)),
    ],
)
def test_a_file_and_its_scale(text: str, wanted: tuple[str, float]) -> None:
    use = parse_lora(text)
    assert (use.path, use.scale) == wanted and parse_lora(str(use)) == use


@pytest.mark.parametrize("number", ["nan", "inf", "1e9", "-11"])
def test_scales_that_are_none(number: str) -> None:
    with pytest.raises(ModelError, match="a LoRA's scale is from -10 to 10"):
        parse_lora(f"a.safetensors:{number}")


def test_files_that_are_refused(tmp_path: Path) -> None:
    base, path = base_of(), tmp_path / "a.safetensors"
    with pytest.raises(ModelError, match="there is no LoRA"):
        read_lora(path)
    with pytest.raises(ModelError, match="there is no LoRA"):
        read_lora(tmp_path)
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(ModelError, match="is a pickle"):
        read_lora(path)
    lora_of(base).save(path, "tiny")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="is broken or no LoRA"):
        read_lora(path)
    save_file({"blocks.0.ffn.up.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ModelError, match=r"no LoRA that is known here: it holds blocks\.0"):
        read_lora(path)
    save_file({"x.lora_A.weight": torch.zeros(2, 3), "x.lora_B.weight": torch.zeros(3, 4)}, path)
    with pytest.raises(ModelError, match="the two parts of x do not fit"):
        read_lora(path)
    save_file({"x.lora_A.weight": torch.zeros(2, 3), "x.lora_B.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(ModelError, match=r"was made for another model: it changes x\.weight \[3, 3\]"):
        add_loras(base, [LoraUse(str(path))])
    about = {"lora": json.dumps({"alpha": "much"})}
    save_file({"x.lora_A.weight": torch.zeros(2, 3), "x.lora_B.weight": torch.zeros(3, 2)}, path, metadata=about)
    with pytest.raises(ModelError, match="alpha"):
        read_lora(path)


def test_a_refused_lora_leaves_the_model_alone(tiny_model: Path, tmp_path: Path) -> None:
    lora_of(base_of()).save(tmp_path / "a.safetensors", "other")
    with pytest.raises(ModelError, match="was made for another model"):
        load_bundle(tiny_model, loras=[LoraUse(str(tmp_path / "a.safetensors"))])


@pytest.mark.parametrize("settings", [{"rank": 0}, {"rank": 10**6}, {"alpha": 0.0}, {"alpha": -1.0}])
def test_settings_that_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LoraConfig(**settings)  # type: ignore[arg-type]


def test_a_lora_that_is_not_finite_is_neither_used_nor_merged(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    lora = Lora(LoraConfig(rank=2), load_bundle(tiny_model, dtype=torch.float32).transformer)
    next(iter(lora.up.values())).data.fill_(torch.nan)
    lora.save(path, "tiny")
    with pytest.raises(ModelError, match=r"a\.safetensors has numbers that are not finite, in .*lora_B"):
        merge_loras(tiny_model, [LoraUse(str(path))], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(ModelError, match="is a pickle, which can run code"):
        read_lora(path)
