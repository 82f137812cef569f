"""TwinFlow: turn a many-step text-to-image model into a promoted one-step generator."""
