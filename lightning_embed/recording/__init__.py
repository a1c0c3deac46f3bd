"""What a run leaves to be looked at: TensorBoard's pages, and pictures in its folder."""
