"""A turn as a program of its own."""

from kimi_magic.export.forms import FORMS, Form, write
from kimi_magic.export.left_out import leave_out
from kimi_magic.export.program import Program, program_of

__all__ = ["FORMS", "Form", "Program", "leave_out", "program_of", "write"]
