"""Train the demo's segmentation network on one template, by randomising its shape and its contrast."""
