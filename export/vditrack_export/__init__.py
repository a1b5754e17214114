"""From a checkpoint to a bundle: runs on a workstation, with torch and diffusers."""
