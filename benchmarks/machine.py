"""What the benchmark runs on: versions, rate of matrix products, start-up."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import hybridsam_lite as hs
from hybridsam_lite.device import cpu_threads

__all__ = ["describe", "generators", "matmul_rate", "start_up"]

TASKS = ("pendulum", "duffing", "reaction_diffusion", "pendulum_images", "wind_tunnel", "light_tunnel")
PACKAGES = ("hybridsam-lite", "torch", "torchdiffeq", "pytorch-optimizer", "numpy")


def describe() -> dict[str, Any]:
    """Processor, system and versions; no name and no path of the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def matmul_rate(threads: int, size: int = 1024, repetitions: int = 9) -> float:
    """Floating-point operations per second of a product of two square matrices, single precision; the median."""
    a, seconds = torch.randn(size, size), []
    clock = time.process_time if threads == 1 else time.perf_counter
    with cpu_threads(threads):
        for _ in range(repetitions + 2):
            start = clock()
            a @ a
            seconds.append(clock() - start)
    return 2 * size**3 / statistics.median(seconds[2:])


def generators(preset: str = "full") -> dict[str, float]:
    """Seconds of the processor in which each task simulates its data; nothing is cached."""
    seconds = {}
    for name in TASKS:
        start = time.process_time()
        hs.tasks.get(name, preset=preset)
        seconds[name] = time.process_time() - start
    return seconds


def start_up(repetitions: int) -> dict[str, float]:
    """Seconds of a new Python that imports torch, that imports this library, and their ratio; medians."""
    seconds: dict[str, list[float]] = {"torch": [], "hybridsam_lite": []}
    for i in range(repetitions + 1):
        for module, taken in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            taken += [time.perf_counter() - start] if i else []  # the first reads the disk
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return {**{m: statistics.median(s) for m, s in seconds.items()}, "ratio": statistics.median(ratios)}
