"""A residual block that starts without effect, so that a trained network can gain it.

In: a map (B, C, H, W). Out: the same shape. Does not know: where it stands in a network.

Shape suffixes: B slices, C channels, H W grid.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside the map itself; the second starts as zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        result: Tensor = x_bchw + self.second(F.relu(self.first(x_bchw), inplace=True))
        return result


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """So many blocks, one after the other."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
