"""Pictures from sentences: a GAN whose generator and discriminator are each assisted by a network of its own."""
