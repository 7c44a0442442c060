"""Where a model goes: devices with what is committed on them enter, placements worth trying leave."""
