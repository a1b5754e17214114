"""SkyReels-V2, a fine-tuned copy of Wan's architecture. Its autoencoder is Wan's."""
