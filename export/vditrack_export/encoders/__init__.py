"""Video autoencoders as graphs: from frames to the latents that a transformer takes."""
