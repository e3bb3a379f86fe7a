"""Reward models learnt from comparisons: losses, training, evaluation beside simple baselines, calibration."""
