"""Own weights: data with a known origin, composition, losses and the training itself."""
