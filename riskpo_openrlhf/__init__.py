"""RiskPO for OpenRLHF. Importing this package imports nothing heavy: each name below is loaded at its first use."""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "RiskPOConfig": "riskpo_openrlhf.config",
    "RiskPOEstimator": "riskpo_openrlhf.core.estimator",
    "QuantileTracker": "riskpo_openrlhf.core.quantiles",
    "install": "riskpo_openrlhf.integration.launch",
    "openrlhf_parser": "riskpo_openrlhf.integration.parser",
    "openrlhf_args": "riskpo_openrlhf.integration.parser",
}

__all__ = ["QuantileTracker", "RiskPOConfig", "RiskPOEstimator", "install", "openrlhf_args", "openrlhf_parser"]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__():
    return sorted({*globals(), *_HOME})
