"""TSN, temporal segment networks: an image network on every frame, and the mean of its class scores.

Wang, Xiong, Wang, Qiao, Lin, Tang and Van Gool, "Temporal segment networks: towards good practices for deep action
recognition", ECCV 2016, Sec. 3.1 (average consensus). Its frames are one of each segment of the video, which is a
matter of how clips are read; the network only averages. The classifier is linear, so the mean of the frames' scores
is the score of their mean features. (In training, the published dropout draws anew for every frame, ours once a clip.)

The paper used BN-Inception; the form compared with today is ResNet-50 (TSM's tables), and so is this one: 32.7 G
multiply-adds at 8 x 224 x 224. The 80 G of Table 2 of our paper are another setting: 25 frames, which TSN is tested
on, through Inception-v3 at 3.2 G each, as later papers list it (TEA, Li et al., CVPR 2020, table for Kinetics). This
network would come to 80 G with 19.6 frames.
"""

from __future__ import annotations

from typing import Any

from peakzoom.model.backbones.resnet import FrameResNet


class TSN(FrameResNet):
    """ResNet-50 on every frame; the average over frames is the network's own global pooling."""


def tsn(num_classes: int, dropout: float = 0.8, **kwargs: Any) -> TSN:
    """ResNet-50 on every frame: 24 M parameters, 4.09 G multiply-adds a frame of 224 x 224, stride 32; dropout 0.8."""
    return TSN(num_classes, dropout=dropout, **kwargs)
