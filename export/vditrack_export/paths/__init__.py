"""From latents to descriptors through a video diffusion transformer, one module a family."""
