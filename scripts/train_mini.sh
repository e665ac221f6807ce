#!/usr/bin/env bash
# The whole story of the shipped model in one script: from nothing to weights that `yozora generate` loads.
#
# There is no footage to download. Everything is rendered from the simulated world as it is needed, so this needs no
# network and no data set: two CPU cores and several hours. (On a GPU: scripts/train_on_gpu.sh.)
# Each stage goes on from its last checkpoint: stop with Ctrl-C, run the script again.
set -euo pipefail
cd "$(dirname "$0")/.."
configs=${1:-configs/mini}
yozora=${YOZORA:-.venv/bin/yozora}

# 1. The autoencoder learns to press 4x16x16 pixels of video into one latent cell, and to draw them again.
$yozora train autoencoder "$configs/autoencoder.toml"

# 2. Its decoder goes on alone, for the sake of moving bodies; what is drawn from becomes better, what is learned stays.
$yozora train autoencoder "$configs/decoder.toml"

# 3. The text encoder learns to read: which colour, shape, motion and camera does a caption name?
$yozora train text "$configs/text.toml"

# 4. A pool of scenes is rendered and encoded once. Captions are written anew each time a clip is drawn.
$yozora train latents "$configs/latents.toml"

# 5. The transformer learns the flow from noise to those latents, told what they show: first of pictures and moments,
#    then of whole clips, and last with a token for each cell of the latents.
$yozora train transformer "$configs/pictures.toml"
$yozora train transformer "$configs/transformer.toml"
$yozora train transformer "$configs/fine.toml"

# 6. An adapter learns where the transformer's steps and guidance lead together, so that a few steps do.
$yozora train distill "$configs/few_steps.toml"

# 7. They become better at shapes: an inspector says what it sees in their own videos, and they learn from it.
$yozora train inspector "$configs/reward_inspector.toml"
$yozora train reward "$configs/reward.toml"

# 8. The networks become one folder. Move it to yozora/models/weights/mini to ship it.
$yozora train bundle "$configs/bundle.toml"
