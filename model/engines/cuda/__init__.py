"""CUDA devices: which there are, and memory and streams on one of them."""
