"""What the tests of the command line, of `doctor`, and of tables of python-cqrs, share."""

from tests.integration.adopted_site import site_of
from tests.integration.command import black_hole, folder, run
from tests.integration.doctoring import as_before, site, sites

__all__ = ["as_before", "black_hole", "folder", "run", "site", "site_of", "sites"]
