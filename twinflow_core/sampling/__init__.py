"""Few-step and many-step sampling of latents."""
