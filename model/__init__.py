"""Pixels and tensors; no network: codecs, letterbox, refinement, engines, the model store."""
