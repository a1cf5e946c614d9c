"""Named sweeps: the file that names them, when each is due, and what starts them."""
