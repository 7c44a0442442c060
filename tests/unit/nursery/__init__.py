"""What models are born from: the parts of triton/nursery, without a Triton."""
