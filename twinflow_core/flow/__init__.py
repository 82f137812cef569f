"""The mathematics of TwinFlow: pure functions of tensors, a velocity and explicit draws."""
