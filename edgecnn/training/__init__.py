"""Datasets and fine-tuning; Keras is imported only when asked."""
