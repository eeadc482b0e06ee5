"""Figures of networks: what a network does, where it is drawn, and the strokes."""
