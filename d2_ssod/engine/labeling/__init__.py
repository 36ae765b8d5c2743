"""Pseudo-labels for the next phase.

next_phase.py  predict, threshold, consensus, selection, and their files
predicting.py  ... what the models see on the images
extra_sources.py ... what models of elsewhere see, which vote along
corrections.py ... what a person says instead
diagnostics.py what is said about the labels before they are trained on
"""
