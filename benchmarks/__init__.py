"""Side by side: this package, MLflow's own monitor, psutil and bare system calls."""
