"""Uncertainty-guided multi-phase semi-supervised object detection for Detectron2."""

__version__ = "0.1.0"
