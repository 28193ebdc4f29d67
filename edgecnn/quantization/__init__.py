"""Quantization: recipes, calibration, repairs, and the integers that every format is written from."""
