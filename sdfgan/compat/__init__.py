"""What only older projects need: their flags, and the weights that they trained."""

from typing import TYPE_CHECKING

from sdfgan._lazy import lazy

if TYPE_CHECKING:
    from sdfgan.compat.importers import Imported, import_generator
    from sdfgan.fields.dfr import DfrSDF
else:
    __getattr__, __dir__ = lazy(__file__)

__all__ = ["DfrSDF", "Imported", "import_generator"]
