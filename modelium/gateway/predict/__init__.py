"""``/predict``: bodies in Hugging Face's schemas enter, answers leave, of every kind of model."""
