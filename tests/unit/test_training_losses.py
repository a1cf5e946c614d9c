import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from model.training.losses import LossWeights, edge_band, matting_loss, soft_iou  # noqa: E402


def loss(logits: "torch.Tensor", alpha: "torch.Tensor", shares: LossWeights, weight=(1.0, 1.0)) -> float:
    coarse = torch.nn.functional.avg_pool2d(logits, 8)
    contrast = torch.full_like(alpha, 0.5)
    return float(matting_loss(coarse, logits, alpha, contrast, torch.tensor(weight), shares))


@pytest.fixture
def alpha() -> "torch.Tensor":
    truth = torch.zeros(2, 1, 64, 64)
    truth[:, :, 16:48, 16:48] = 1
    return truth


def test_every_loss_is_least_for_the_truth_and_most_for_its_opposite(alpha: "torch.Tensor") -> None:
    right, wrong = (alpha * 2 - 1) * 12, (1 - alpha * 2) * 12
    names = [name for name in LossWeights.__dataclass_fields__ if name != "auxiliary"]
    for name in names:
        shares = LossWeights(**{**dict.fromkeys(LossWeights.__dataclass_fields__, 0.0), name: 1.0})
        assert loss(right, alpha, shares) < 0.01, name
        assert loss(wrong, alpha, shares) > 0.2, name


def test_absolute_errors_by_hand(alpha: "torch.Tensor") -> None:
    nothing = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)
    undecided = torch.zeros_like(alpha)

    assert loss(undecided, alpha, LossWeights(**{**nothing, "l1": 1.0})) == pytest.approx(0.5)
    assert loss(undecided, alpha, LossWeights(**{**nothing, "composition": 1.0})) == pytest.approx(0.25)
    assert loss(undecided, alpha, LossWeights(**{**nothing, "bce": 1.0})) == pytest.approx(0.6931, abs=1e-4)


def test_a_sample_counts_by_its_weight(alpha: "torch.Tensor") -> None:
    logits = (alpha * 2 - 1) * 12
    logits[1] = -logits[1]
    l1 = LossWeights(**{**dict.fromkeys(LossWeights.__dataclass_fields__, 0.0), "l1": 1.0})

    assert loss(logits, alpha, l1, (1.0, 1.0)) == pytest.approx(0.5, abs=0.01)
    assert loss(logits, alpha, l1, (1.0, 0.25)) == pytest.approx(0.2, abs=0.01)


def test_soft_iou_by_hand(alpha: "torch.Tensor") -> None:
    half = alpha.clone()
    half[:, :, :, 32:] = 0

    assert soft_iou(alpha, alpha).tolist() == [1, 1]
    assert soft_iou(torch.zeros_like(alpha), torch.zeros_like(alpha)).tolist() == [1, 1]
    assert float(soft_iou(half, alpha)[0]) == pytest.approx((512 + 16) / (1024 + 16))


def test_the_band_lies_round_the_edge_only(alpha: "torch.Tensor") -> None:
    band = edge_band(alpha)[0, 0]

    assert band[32, 13:19].tolist() == [1] * 6
    assert band[32, 32] == 0
    assert band[5, 5] == 0
    assert float(edge_band(torch.ones(1, 1, 32, 32)).max()) == 0
