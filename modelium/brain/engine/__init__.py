"""vLLM engines: a language model, devices and settings enter; arguments, memory and places leave."""
