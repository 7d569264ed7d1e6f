"""Small networks for the capture's tests."""

import torch
import torch.nn.functional as F
from torch import nn


class Cnn(nn.Module):
    """A convolution, normalisation, an in-place activation, pooling, dropout, a shortcut."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.fc = nn.Linear(64, 5)

    def forward(self, x):
        x = self.drop(self.pool(self.relu(self.bn(self.conv(x)))))
        x = x + torch.sigmoid(self.depthwise(x))
        return self.fc(x.flatten(1))


class Attention(nn.Module):
    """Attention three ways: products written out, fused, and a library's layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.ln = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, tokens):
        x = self.ln(self.embed(tokens))
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.einsum("bhld,bhsd->bhls", q, k).softmax(-1)
        x = x + (scores @ v).transpose(1, 2).reshape(batch, length, 8)
        fused = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + fused.transpose(1, 2).reshape(batch, length, 8)
        return self.head(x + self.mha(x, x, x)[0])


def cnn_case():
    model = Cnn()
    x, y = torch.randn(2, 3, 8, 8), torch.tensor([1, 3])
    return model, lambda: F.cross_entropy(model(x), y)


def attention_case():
    model = Attention()
    tokens = torch.randint(0, 11, (3, 5))
    return model, lambda: F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())


CASES = {"cnn": cnn_case, "attention": attention_case}
