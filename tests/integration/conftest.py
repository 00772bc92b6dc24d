"""What the tests of the command line, and of tables of python-cqrs, share."""

from tests.integration.adopted_site import site_of
from tests.integration.command import black_hole, folder, run

__all__ = ["black_hole", "folder", "run", "site_of"]
