"""Clips of very many classes, composed of who moves, which part, where to and how often: what start weights learn."""
