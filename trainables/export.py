"""Loading an exported network: ``load(file)`` is what users import."""

from trainables.exporting.safetensors_file import Exported, export, load

__all__ = ["Exported", "export", "load"]
