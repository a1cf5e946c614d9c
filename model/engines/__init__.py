"""Engines that turn images into alpha; one contract for all."""
