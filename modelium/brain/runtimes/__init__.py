"""Which runtime serves a model: a profile and the capabilities enter, a choice or a refusal with its reason leaves."""
