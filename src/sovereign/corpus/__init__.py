"""Text becomes documents, a split, tokens, shards and a stream; and what held-out text shares with the train side."""
