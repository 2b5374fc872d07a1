"""sovereign: every training run makes claims; write them down first, collect evidence, say which hold."""

__version__ = "0.1.0"
