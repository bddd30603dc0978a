"""A small real training job in plain MLflow code: it knows nothing of this package."""

from __future__ import annotations

import time

import mlflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def train(seconds: float = 10.0) -> str:
    """Train a classifier on scikit-learn's bundled digits for about `seconds`; the run's id."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16.0, labels, test_size=0.25, random_state=0
    )
    with mlflow.start_run() as run:
        mlflow.log_params({"hidden_layers": "256, 128", "batch_size": 32})
        model = MLPClassifier(hidden_layer_sizes=(256, 128), batch_size=32, random_state=0)
        end = time.monotonic() + seconds
        epoch = 0
        while time.monotonic() < end:
            model.partial_fit(train_x, train_y, classes=range(10))
            mlflow.log_metric("loss", model.loss_, step=epoch)
            epoch += 1
        mlflow.log_metric("test_accuracy", model.score(test_x, test_y))
        return str(run.info.run_id)


if __name__ == "__main__":
    mlflow.enable_system_metrics_logging()
    mlflow.set_system_metrics_sampling_interval(0.01)
    mlflow.set_system_metrics_samples_before_logging(100)
    train()
