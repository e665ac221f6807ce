"""The networks: diffusion transformer, video autoencoder, text encoder, and the folders and names they load from.

Import them from their own files (`yozora.models.transformer`, …): each is plain single-device code.
"""
