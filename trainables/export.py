"""Loading an exported network: ``load(file)`` is what users import."""

from trainables.exporting.network_file import Exported, export, load

__all__ = ["Exported", "export", "load"]
