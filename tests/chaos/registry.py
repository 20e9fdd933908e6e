"""All drills, in the order of the table; a new family adds its module here."""

from chaos import clients, providers, servers, storage, waiting, workers
from chaos.harness import Drill

FAMILIES = (workers, servers, storage, clients, providers, waiting)
DRILLS: dict[str, Drill] = {drill.name: drill for family in FAMILIES for drill in family.DRILLS}
