"""Machines that engines are compared with: an Orin, a desktop, and one without a GPU."""

from dataclasses import replace

from vditrack.inference.machine import Machine

ORIN = Machine(
    tensorrt="10.3.0",
    tensorrt_rtx=None,
    architecture="sm87",
    gpu="Orin",
    driver="540.4.0",
    cuda="12.6",
    jetpack="6.2",
)
DESKTOP = Machine(
    tensorrt="10.16.1.11",
    tensorrt_rtx="1.7.1.116",
    architecture="sm89",
    gpu="NVIDIA GeForce RTX 4090",
    driver="580.95.05",
    cuda="13.0",
    jetpack=None,
)
NO_GPU = replace(DESKTOP, architecture=None, gpu=None, driver=None, cuda=None)
