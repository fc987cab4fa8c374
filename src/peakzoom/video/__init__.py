"""From a video file to what the network sees: decode, clips, views; lists of videos; rendered clips."""
