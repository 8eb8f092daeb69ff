"""From Keras layers to plain operations, and the rules that rewrite those."""
