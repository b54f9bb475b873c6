"""A real nginx between scripted origins and raw clients."""
