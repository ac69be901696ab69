"""The operators as pure functions of tensors."""
