"""The life of one model, on paper: a record and an event enter, the next record and what is to be done leave.

Nothing here waits, reads a clock or touches the world, so a life can be told as a list of events and checked as a list of
effects. ``Models`` (one room above) is the only caller: it keeps the records and does what the effects say.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):  # each may fill the table
    importlib.import_module(f"{__name__}.{_module.name}")
