"""Latents and prompt embeddings, shard by shard, each row found again by what it was made from."""
