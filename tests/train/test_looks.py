"""What the autoencoder may be asked for besides small errors: to look alike, to pass for true, to carry little."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_stages import ROOT, write

from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Inspector, InspectorConfig
from yozora.train import run
from yozora.train.config import Perceptual
from yozora.train.critic import Critic, contest
from yozora.train.perceptual import Lpips, OwnFeatures, load_perceptual

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Checkered ones, [2, 3, 64, 48] in -1..1."""
    rows, columns = np.indices((64, 48)) // 4
    board = torch.from_numpy((rows + columns) % 2 * 1.6 - 0.8).float()
    return torch.stack([board, board.flip(0).roll(2, 1)])[:, None].repeat(1, 3, 1, 1)


def inspector() -> Inspector:
    torch.manual_seed(0)
    made = Inspector(InspectorConfig(widths=(8, 8, 8, 8)))
    for parameter in made.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made


def test_own_features_tell_a_blur_from_the_same_error_of_brightness(pictures: torch.Tensor) -> None:
    looks = OwnFeatures(load_module(Inspector, ROOT / "yozora" / "evaluate" / "weights" / "inspector"))
    assert looks(pictures, pictures).abs().max() == 0
    blurred = F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    error = (blurred - pictures).abs().mean()
    with torch.no_grad():
        apart, brighter = looks(blurred, pictures), looks(pictures + error, pictures)
    assert apart.shape == (2,) and (apart > 1.5 * brighter).all()


def test_the_inspectors_answer_is_made_of_its_features(pictures: torch.Tensor) -> None:
    made = inspector()
    seen = made.features(pictures)
    assert [tuple(each.shape[2:]) for each in seen] == [(32, 24), (16, 12), (8, 6), (4, 3)]
    whole = made(pictures)
    assert whole.thing.shape == (2, 32, 24)


def plain_lpips(one: torch.Tensor, other: torch.Tensor, stored: dict[str, torch.Tensor]) -> torch.Tensor:
    """LPIPS 0.1 as Zhang et al. write it down, from weights called as the package calls them."""

    def seen(x: torch.Tensor) -> list[torch.Tensor]:
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        found = []
        layers = ["1.0", "1.2", "pool", "2.5", "2.7", "pool", "3.10", "3.12", "3.14", "pool", "4.17", "4.19", "4.21"]
        for layer in [*layers, "pool", "5.24", "5.26", "5.28"]:
            if layer == "pool":
                found.append(x)
                x = F.max_pool2d(x, 2)
            else:
                weight, bias = stored[f"net.slice{layer}.weight"], stored[f"net.slice{layer}.bias"]
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
        return [*found, x]

    total = torch.zeros(len(one))
    for number, (a, b) in enumerate(zip(seen(one), seen(other), strict=True)):
        a, b = (each / (each.square().sum(1, keepdim=True).sqrt() + 1e-10) for each in (a, b))
        weights = stored[f"lin{number}.model.1.weight"]
        total += F.conv2d((a - b).square(), weights).mean((1, 2, 3))
    return total


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, by the names of the package `lpips`, and some of its others."""
    torch.manual_seed(1)
    own = Lpips()
    for parameter in own.counts:
        parameter.data.uniform_(0, 1)
    stored = {there: own.state_dict()[name] for name, there in Lpips.names().items()}
    path = tmp_path_factory.mktemp("lpips") / "lpips.pt"
    torch.save(stored | {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}, path)
    return path


def test_lpips_is_as_its_authors_write_it_down(pictures: torch.Tensor, lpips_file: Path) -> None:
    network = load_perceptual(Perceptual(lpips=lpips_file), CPU)
    other = pictures.roll(3, 2) * 0.7
    found = network(pictures, other)
    torch.testing.assert_close(found, plain_lpips(pictures, other, torch.load(lpips_file)), rtol=1e-4, atol=1e-6)
    assert (found > 1e-3).all() and not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04"])
def test_what_is_no_lpips_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(ConfigError, match=r"there is no .*; make it with: python -c"):
            load_perceptual(Perceptual(lpips=tmp_path / f"no {name}"), CPU)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="holds no LPIPS by VGG") as caught:
            load_perceptual(Perceptual(lpips=tmp_path / name), CPU)
        assert "\n" not in str(caught.value)
    torch.save({"net.slice1.0.weight": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="holds no LPIPS by VGG"):
        load_perceptual(Perceptual(lpips=tmp_path / "a.pt"), CPU)
    with pytest.raises(ValueError, match="give features, an inspector's folder, or lpips"):
        Perceptual(weight=1.0)


def test_each_side_of_a_contest_learns_its_own_part_alone() -> None:
    torch.manual_seed(0)
    critic, frames = Critic(8), torch.randn(2, 3, 3, 32, 16)
    again = torch.randn(2, 3, 3, 32, 16, requires_grad=True)
    assert critic(frames).shape == (6, 4, 2)
    fooled, caught, right = contest(critic, again, frames)
    assert 0 <= right <= 1
    (gradient,) = torch.autograd.grad(fooled, again, retain_graph=True)
    assert gradient.abs().max() > 0
    fooled.backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in critic.parameters())
    again.grad = None
    caught.backward()
    assert again.grad is None and all(parameter.grad is not None for parameter in critic.parameters())


def test_a_critic_sees_a_flicker_that_no_frame_shows() -> None:
    torch.manual_seed(0)
    critic, still = Critic(8), torch.randn(1, 3, 1, 32, 32).expand(-1, -1, 4, -1, -1)
    assert torch.allclose(critic(still)[1], critic(still)[3], atol=1e-6)
    flicker = torch.cat([still[:, :, :2], still[:, :, :1].flip(-1), still[:, :, :1]], dim=2)
    assert not torch.allclose(critic(flicker)[3], critic(still)[3], atol=1e-3)  # the same frame, after another


def test_a_critic_learns_to_tell() -> None:
    torch.manual_seed(0)
    critic = Critic(8)
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    random = torch.Generator().manual_seed(1)
    for _ in range(60):
        frames = torch.randn(2, 3, 2, 32, 32, generator=random)
        again = F.avg_pool3d(frames, (1, 3, 3), stride=1, padding=(0, 1, 1))
        _, caught, right = contest(critic, again, frames)
        optimiser.zero_grad()
        caught.backward()
        optimiser.step()
    assert right > 0.9


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A configuration, and what asks for all of it."""
    folder = tmp_path_factory.mktemp("looks")
    save_module(inspector(), folder / "inspector")
    asked = [f'perceptual={{features="{folder / "inspector"}", weight=0.2}}', "adversarial={width=8}", "kl_weight=0.01"]
    return write("autoencoder", folder), asked


def test_an_autoencoder_learns_with_all_of_them_and_goes_on(
    settings: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is exported is the autoencoder alone, and a run that was broken off is the run that was not."""
    path, asked = settings
    said, made = dict[str, dict[str, str]](), tmp_path
    for name, parts in (("whole", (6,)), ("parts", (3, 6))):
        for steps in parts:
            common = [*asked, f'run.out="{tmp_path / name}"', f"run.steps={steps}", "run.log_every=1", "optim.decay=0"]
            made = run("autoencoder", path, common)
        said[name] = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "loss" in line}
    for part in ("kl ", "perceptual ", "fooled ", "critic ", "critic_right "):
        assert part in said["whole"]["1/6"]
    losses = [float(said[name]["6/6"].split("loss ")[1].split()[0]) for name in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    load_module(Autoencoder, made)
    assert json.loads((made / "config.json").read_text())["class"] == "Autoencoder"
    with pytest.raises(ConfigError, match="does not fit this configuration"):
        run("autoencoder", path, [f'run.out="{made.parent}"', "run.steps=7"])  # its checkpoint has a critic


def test_what_cannot_be_asked_for(settings: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, _ = settings
    out = f'run.out="{tmp_path / "out"}"'
    for setting, message in (
        ("perceptual={}", "perceptual: give features"),
        ("perceptual={feature=1}", r"unknown setting perceptual\.feature; is features meant\?"),
        ("adversarial={width=12}", r"adversarial\.width: Input should be a multiple of 8"),
    ):
        with pytest.raises(ConfigError, match=message):
            run("autoencoder", path, [out, setting])
    with pytest.raises(ConfigError, match="kl_weight is for latents under noise"):
        run("autoencoder", path, [out, "kl_weight=0.1", "model.latent_noise=0"])
