"""The enhancement VAE: 16 kHz mono to 48 kHz stereo."""
