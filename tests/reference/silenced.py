"""Naive twin of structural pruning: nothing is removed, channels are forced to 0 where they come out of a layer."""

from contextlib import contextmanager


@contextmanager
def silenced(model, channels):
    """Force channels of the outputs of modules, by name, to 0 as long as the context lasts."""

    def hook(indices):
        def force(module, inputs, output):
            output = output.clone()
            for i in indices:
                output[:, i] = 0
            return output

        return force

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(hook(list(indices))) for name, indices in channels.items()]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()
