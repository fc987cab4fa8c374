"""From a video file to what the network sees: decoding, clips, views."""
