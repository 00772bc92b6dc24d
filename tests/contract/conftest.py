"""What the tests of the inbox, and those of what operators ask, share."""

from tests.contract.billing import billing, database
from tests.contract.operating import access, world

__all__ = ["access", "billing", "database", "world"]
