"""What is trained: a Llama-family decoder that `transformers` can load unchanged."""
