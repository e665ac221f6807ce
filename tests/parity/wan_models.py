"""diffusers' own modules of Wan, tiny and with random weights: what ours are compared with."""

from __future__ import annotations

import importlib
from typing import Any

import torch

TINY: dict[str, dict[str, Any]] = {
    "2.1": {"base_dim": 8, "z_dim": 4},
    "2.2": {
        "base_dim": 8,
        "decoder_base_dim": 16,
        "z_dim": 6,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    },
}


def tiny_autoencoder(version: str) -> Any:
    """diffusers' autoencoder, tiny, every weight random."""
    library: Any = importlib.import_module("diffusers.models.autoencoders.autoencoder_kl_wan")
    settings = TINY[version]
    channels = settings["z_dim"]
    torch.manual_seed(channels)
    statistics = {"latents_mean": torch.randn(channels).tolist(), "latents_std": torch.rand(channels).add(0.5).tolist()}
    model = library.AutoencoderKLWan(**settings, **statistics)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tiny_transformer(heads: int = 2, head_width: int = 16, ffn: int = 56, depth: int = 2, channels: int = 4) -> Any:
    """diffusers' transformer, every weight random."""
    library: Any = importlib.import_module("diffusers.models.transformers.transformer_wan")
    torch.manual_seed(heads * head_width + depth)
    model = library.WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_width,
        in_channels=channels,
        out_channels=channels,
        text_dim=24,
        freq_dim=64,
        ffn_dim=ffn,
        num_layers=depth,
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.02, std=0.08)
    return model.eval()


def tiny_text_encoder() -> tuple[Any, Any]:
    """transformers' UMT5 encoder, tiny and random, and a tokenizer that knows letters and a few words."""
    library: Any = importlib.import_module("transformers")
    pieces = ["▁a", "▁red", "▁ball", "▁", *"abcdefghijklmnopqrstuvwxyzäöü&<>'\".,é"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -len(piece) / 10) for piece in pieces)]
    tokenizer = library.T5Tokenizer(vocab=vocabulary, extra_ids=0)
    torch.manual_seed(3)
    config = library.UMT5Config(vocab_size=64, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4, dropout_rate=0.0)
    encoder = library.UMT5EncoderModel(config).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder, tokenizer


def tiny_pipeline(version: str) -> Any:
    """diffusers' whole pipeline: "2.1", or "2.2" whose tokens have noise levels of their own."""
    library: Any = importlib.import_module("diffusers")
    encoder, tokenizer = tiny_text_encoder()
    autoencoder = tiny_autoencoder(version)
    scheduler = library.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0 if version == "2.1" else 5.0
    )
    transformer = tiny_transformer(channels=autoencoder.config.z_dim)
    pipeline = library.WanPipeline(
        tokenizer, encoder, autoencoder, scheduler, transformer, expand_timesteps=version == "2.2"
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
