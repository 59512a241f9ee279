"""What `hf_vlm` consists of: the checkpoint's own processor, and its images, encoded once."""
