"""The names that `kzoo.files` has taken over; to be imported from there."""

from kzoo.files import UniqueNames as OwnNames
from kzoo.files import write_json, write_text

__all__ = ["OwnNames", "write_json", "write_text"]
