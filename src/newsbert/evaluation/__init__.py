"""Pure functions of labels and probabilities: metrics, calibration, significance, review thresholds, plots."""
