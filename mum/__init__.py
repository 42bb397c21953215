"""Models of multi-view masked autoencoding and their mathematics; imports no sibling package.

Importing it registers the encoder presets with timm:

    model = mum.create_model("mum_vitlarge_patch16")      # or mum.load("model.safetensors" or a run folder)
    out = model(images, views)                            # out.loss, out.pred, out.mask
    model.encoder.forward_features(normalised_images)     # a timm model

A pack of images is (I, 3, H, W) with views (B,), the number of images of each scene; bytes are normalised
inside the model, floats are taken as normalised.
"""

from mum.attention import use_attention
from mum.block import use_lean_blocks
from mum.cross_view import cross_view_gain
from mum.decoder import DecoderConfig
from mum.encoder import PRESETS, EncoderConfig
from mum.errors import InputError
from mum.masked import MuM, MuMConfig, MuMOutput, create_model, patchify, unpatchify
from mum.masking import mask_noise
from mum.weights import WeightsError, load, load_reference, read_header, save

__all__ = [
    "PRESETS",
    "DecoderConfig",
    "EncoderConfig",
    "InputError",
    "MuM",
    "MuMConfig",
    "MuMOutput",
    "WeightsError",
    "create_model",
    "cross_view_gain",
    "load",
    "load_reference",
    "mask_noise",
    "patchify",
    "read_header",
    "save",
    "unpatchify",
    "use_attention",
    "use_lean_blocks",
]
