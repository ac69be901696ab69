"""What FastSurfer and FONDUE do to an image before the network sees it, and to what the network says afterwards."""
