"""Predictors: a checkpoint's outputs over rows of a shard."""

from rayal.predictors.torch_predictor import TorchPredictor

__all__ = ["TorchPredictor"]
