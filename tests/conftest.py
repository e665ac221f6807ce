"""What several rooms' tests share: a tiny model with random weights, saved as a real one would be."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# No test fails because the machine is busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Shapes in signatures are checked while the tests run, in the modules that write them; before these are imported.
CHECKED = ("autoencoder", "enhancer", "inspector")
install_import_hook([f"yozora.models.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole, tiny, random model: real components, every weight drawn so that each input matters."""
    import torch

    from yozora.models.autoencoder import Autoencoder, AutoencoderConfig
    from yozora.models.folder import save_module
    from yozora.models.text import TextEncoder, TextEncoderConfig, train_tokenizer
    from yozora.models.transformer import Transformer, TransformerConfig

    tokenizer = train_tokenizer(["a red ball bounces on the grass"], 300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = {
            "transformer": Transformer(
                TransformerConfig(channels=4, width=32, depth=1, heads=2, ffn=2.0, text_width=16)
            ),
            "autoencoder": Autoencoder(AutoencoderConfig(4, (8, 8, 8), (1, 1, 1), (8, 8, 8), (1, 1, 1))),
            "text_encoder": TextEncoder(TextEncoderConfig(tokenizer.get_vocab_size(), 16, 1, 2, 2.0, 64), tokenizer),
        }
        for parameter in modules["transformer"].parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for name, module in modules.items():
        save_module(module.eval(), folder / name)
    card = {
        "name": "tiny",
        "description": "random weights, for tests",
        "fps": 8.0,
        "sizes": [[64, 64], [96, 64]],
        "frames_min": 1,
        "frames_max": 9,
        "steps": 2,
        "guidance": 2.0,
        "shift": 1.0,
        "solver": "euler",
    }
    (folder / "model.json").write_text(json.dumps(card))
    return folder
