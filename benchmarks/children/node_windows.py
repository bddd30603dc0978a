"""Synthetic windows of a node: the metrics that most machines with a GPU have."""

from __future__ import annotations

import random

HOST_METRICS = (
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "disk_usage_percentage",
    "disk_usage_megabytes",
    "disk_available_megabytes",
    "network_receive_megabytes",
    "network_transmit_megabytes",
)
GPU_METRICS = (
    "gpu_0_memory_usage_percentage",
    "gpu_0_memory_usage_megabytes",
    "gpu_0_utilization_percentage",
    "gpu_0_power_usage_watts",
    "gpu_0_power_usage_percentage",
)
NAMES = (*HOST_METRICS, *GPU_METRICS)


def window() -> dict[str, float]:
    """Values as a machine may have them: no two windows are alike."""
    return {name: round(random.uniform(0.0, 1e5), 1) for name in NAMES}
