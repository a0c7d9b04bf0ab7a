"""Networks: the Qwen2.5 decoder, the multi-stream UALM around it, audio encoders."""
