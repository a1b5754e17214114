"""UNets: Stable Diffusion, Stable Video Diffusion, I2VGen-XL, ADM."""
