"""What simulated_nodes is told, on its command line as JSON."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is simulated, and for how long."""

    stock: bool
    """MLflow's own monitor, or ours."""
    uri: str
    run_id: str
    nodes: int
    window_seconds: float
    delivery_interval: float
    """Of ours: seconds from one request with metrics to the next."""
    spread_seconds: float
    """In the course of which the nodes start, at random; 0 for all at once."""
    warm_up_seconds: float
    seconds: float
    """How long is measured after the warm-up."""
    longest_late_seconds: float
    """A window is in time if the server has it by then."""
    programs: dict[str, int]
    """Process ids of the servers whose CPU is measured."""
    requests_file: str
