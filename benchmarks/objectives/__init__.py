"""The objectives against each other, and a TwinFlow step against a plain one."""
