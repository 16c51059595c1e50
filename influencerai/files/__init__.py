"""Files: atomic writes, reads that stay inside a folder, locks, safetensors headers, output and tenant folders."""
