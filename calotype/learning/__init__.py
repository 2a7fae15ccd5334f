"""From images to a bundle: networks, training, and the one way to answers."""
