"""Models that are born of a warm process: a nursery imports what they need once, and forks a child for each of them.

Triton's stub (``relay``) finds the nursery (``client``), which forks (``nursery``, ``birth``) a child that runs the model
(``serving``) as if it were in the stub (``pb``). Requests and answers pass between the two (``packets``, ``tensors``).

Everything here is the standard library and numpy: a stub starts in a tenth of a second. The package is copied into entries and
backends, so it also runs in a Triton that Modelium did not start.
"""
