"""A network like DeepSTARR (de Almeida et al. 2022, doi:10.1038/s41588-022-01048-5): activity of enhancers."""

from torch import Tensor, nn

from promoter.models.external import ExternalModel


class DeepSTARR(nn.Module):
    """Four convolutions and two dense layers: one-hot (batch, 4, length) -> (batch, targets).

    Args:
        length: length of the sequences in bases.
        n_targets: number of outputs.
    """

    def __init__(self, length: int, n_targets: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 4
        for filters, width in ((256, 7), (60, 3), (60, 5), (120, 3)):
            layers += [nn.Conv1d(inputs, filters, width, padding="same"), nn.BatchNorm1d(filters)]
            layers += [nn.ReLU(), nn.MaxPool1d(2)]
            inputs = filters
        layers.append(nn.Flatten())
        inputs *= length // 2**4  # positions that four pools leave
        for units in (256, 256):
            layers += [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(0.4)]
            inputs = units
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, n_targets))

    def forward(self, x: Tensor) -> Tensor:
        """Predict activities."""
        return self.layers(x)


def network() -> ExternalModel:
    """Return the network for developmental and housekeeping promoters."""
    return ExternalModel(DeepSTARR(249, 2), length=249, targets=["Dev", "Hk"])
