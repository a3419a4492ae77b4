"""A small procedural world: scenes of coloured shapes, what can be said about them, and the pixels."""
