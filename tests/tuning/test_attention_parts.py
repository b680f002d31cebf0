"""Attentions with separate query, key and value maps, and maps that are read without being called."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.tuning import SSF, LoRA
from mmgps.tuning.sites import InjectionError, channel_dim, find_sites, structural_parts


class Attention(nn.Module):
    """Layers of ``widths``, in order; with a count of heads unless ``heads`` is None."""

    def __init__(self, *widths: tuple[int, int], heads: int | None = 2) -> None:
        super().__init__()
        if heads is not None:
            self.num_heads = heads
        for at, (inputs, outputs) in enumerate(widths):
            self.add_module(f'layer{at}', nn.Linear(inputs, outputs))


class Grouped(nn.Module):
    """Like BERT: the output projection is a module next to the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = Attention((8, 8), (8, 8), (8, 8)), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1))


class Mlp(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 8))


@pytest.mark.parametrize(
    ('module', 'expected'),
    [
        (Attention((8, 8), (8, 8), (8, 8), (8, 8)), 'qkv qkv qkv proj'),
        (Attention((8, 8), (8, 4), (8, 4), (8, 8)), 'qkv qkv qkv proj'),  # shared keys and values
        (Attention((8, 8), (6, 8), (6, 8), (8, 8)), 'qkv qkv qkv proj'),  # of another sequence
        (Attention((8, 8), (8, 16), (8, 8)), 'qkv qkv proj'),
        (Attention((8, 24), (8, 8)), 'qkv proj'),
        (Attention((8, 48), (16, 16)), 'qkv proj'),  # as wide behind as its output
        (Attention((8, 24), (8, 8), (2, 2), (2, 2)), 'qkv proj - -'),  # heads talk
        (Attention((8, 16), (8, 8), (8, 8), (3, 2)), 'qkv qkv proj -'),  # scores of positions
        (Grouped(), 'qkv qkv qkv proj'),
        (Attention((8, 8), (8, 8), (8, 8), (8, 8), heads=None), '- - - -'),
        (Attention((8, 24), (8, 8), heads=None), 'qkv proj'),
        (Attention((8, 16), (16, 8), (8, 16), (16, 8)), '- - - -'),
        (Mlp(), '- - - -'),
    ],
    ids=str,
)
def test_the_structure_tells_an_attention(module: nn.Module, expected: str) -> None:
    parts = structural_parts(module)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert ' '.join(parts[id(layer)].value if id(layer) in parts else '-' for layer in layers) == expected


class Composing(nn.Module):
    """Like BEiT: reads the weight if it has its own biases, else calls the layer."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.proj = 2, nn.Linear(8, 24, bias=False), nn.Linear(8, 8)
        self.q_bias = nn.Parameter(torch.zeros(8)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.q_bias is None:
            q, k, v = self.qkv(x.to(self.qkv.weight.dtype)).chunk(3, -1)
        else:
            bias = torch.cat((self.q_bias, torch.zeros(16)))
            q, k, v = F.linear(input=x, weight=self.qkv.weight, bias=bias).chunk(3, -1)
        return self.proj((q * k).softmax(-1) * v)


class Handing(Composing):
    """Like torchvision's Swin: passes the weights to a function."""

    def forward(self, x: Tensor) -> Tensor:
        return self._compute(x)

    def _compute(self, x: Tensor) -> Tensor:
        return _attend(x, self.qkv.weight, self.proj.weight)

    def init_weights(self) -> None:
        nn.init.zeros_(self.proj.weight)


def _attend(x: Tensor, qkv: Tensor, proj: Tensor) -> Tensor:
    q, k, v = F.linear(x, qkv).chunk(3, -1)
    return F.linear((q * k).softmax(-1) * v, proj)


def test_a_map_that_is_read_and_not_called_is_refused() -> None:
    read = {name: {site.path: site.reader for site in find_sites(module)} for name, module in _modules().items()}
    assert read == {
        'composes': {'qkv': 'Composing', 'proj': None},
        'calls': {'qkv': None, 'proj': None},
        'hands on': {'qkv': 'Handing', 'proj': 'Handing'},
    }
    with pytest.raises(InjectionError, match="output of 'qkv': Composing reads its weight and never calls it"):
        LoRA(2).put_in_place(Composing(True))
    LoRA(2).put_in_place(Composing(False))


def _modules() -> dict[str, nn.Module]:
    return {'composes': Composing(True), 'calls': Composing(False), 'hands on': Handing(False)}


def test_networks_of_mmpretrain_that_read_weights_are_known() -> None:
    attention = pytest.importorskip('mmpretrain.models.utils.attention')
    window = attention.WindowMSAV2(8, (4, 4), 2)
    assert {site.path: site.reader for site in find_sites(window)}['qkv'] == 'WindowMSAV2'


class RootMeanSquare(nn.Module):
    """Like two hundred classes of transformers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.dim = nn.Parameter(torch.ones(8)), dim

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class OfAnyDimension(RootMeanSquare):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(self.dim, keepdim=True) + 1e-6)


def test_the_channels_of_a_norm_are_where_its_code_takes_statistics() -> None:
    norm = nn.Sequential(RootMeanSquare(-1))
    (site,) = find_sites(norm)
    assert channel_dim(site) == -1
    SSF(std=0.1).put_in_place(norm)
    x = torch.randn(2, 3, 8)
    scaled = norm(x) - norm[0].forward(x)
    assert scaled.shape == x.shape
    assert scaled.abs().max() > 0
    with pytest.raises(InjectionError, match=r"the channel dimension of '0' \(OfAnyDimension\) is unknown"):
        channel_dim(*find_sites(nn.Sequential(OfAnyDimension(-1))))


class OfMaps(nn.LayerNorm):
    """As that of segmentation-models-pytorch: channels first for maps."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, -1)).transpose(1, -1)


def test_a_layer_norm_that_turns_its_input_is_not_taken_for_one_of_lines() -> None:
    with pytest.raises(InjectionError, match=r"channel dimension of '0' \(OfMaps\) is unknown"):
        channel_dim(*find_sites(nn.Sequential(OfMaps(8))))
