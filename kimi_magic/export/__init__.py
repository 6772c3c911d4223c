"""A turn as a program of its own."""

from kimi_magic.export.forms import FORMS, Form, write
from kimi_magic.export.program import Program, program_of

__all__ = ["FORMS", "Form", "Program", "program_of", "write"]
