"""What the tests of the command line share."""

from tests.integration.command import black_hole, folder, run

__all__ = ["black_hole", "folder", "run"]
