"""torchvision's SSDLite, for tests/test_ssdlite.py: python tests/golden/torchvision_ssdlite.py

Needs torchvision (made with 0.29.1 beside torch 2.14.1, 5.6 GB, which is why the answers are kept
in a file), takes 10 s and writes torchvision_ssdlite.npz beside itself. Weights and targets are
made from a seed, so the test makes the same ones without torch. It has torchvision's names of the
parameters, raw outputs, matches, codes, losses, and what is left after suppression.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden.torchvision_models import SEED, fill

GOLDEN = Path(__file__).with_suffix(".npz")
SIDE, CLASSES = 320, 90
KEPT = 97  # every 97th anchor of the raw outputs; prime, so that all maps and shapes are met
BATCH, MOST = 2, 6  # images, objects in one at the most
NMS = {"score": 0.06, "overlap": 0.55, "candidates": 300, "most": 300}


def pixels() -> np.ndarray:
    """Images (2, H, W, 3) of whole numbers in [0, 255]."""
    return np.random.default_rng([SEED, SIDE]).integers(0, 256, (BATCH, SIDE, SIDE, 3))


def targets() -> tuple[np.ndarray, np.ndarray]:
    """(boxes (2, 6, 4) yxyx in [0, 1], labels (2, 6) from 0 on); the second image has four."""
    rng = np.random.default_rng([SEED, 1])
    sides = rng.uniform(0.2, 0.9, (BATCH, MOST, 2))  # smaller ones have several best anchors
    corner = rng.uniform(0, 1, sides.shape) * (1 - sides)
    labels = rng.integers(0, CLASSES, (BATCH, MOST))
    labels[1, 4:] = -1
    return np.concatenate([corner, corner + sides], -1).astype("float32"), labels


def main() -> None:
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.ops import box_iou

    net = ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=1 + CLASSES,
        score_thresh=NMS["score"],
        nms_thresh=NMS["overlap"],
        topk_candidates=NMS["candidates"],
        detections_per_img=NMS["most"],
    ).eval()
    x = torch.from_numpy((pixels() / 127.5 - 1).astype("float32")).permute(0, 3, 1, 2)
    boxes, labels = targets()
    xyxy = torch.from_numpy(boxes[..., [1, 0, 3, 2]] * SIDE)
    truth = [
        {"boxes": b[k >= 0], "labels": k[k >= 0] + 1}  # 0 is background
        for b, k in zip(xyxy, torch.from_numpy(labels), strict=True)
    ]
    golden = {"parameters": fill(net)}
    with torch.no_grad():
        features = list(net.backbone(x).values())
        outputs = net.head(features)

        class Images:
            tensors, image_sizes = x, [(SIDE, SIDE)] * BATCH

        anchors = net.anchor_generator(Images, features)
        for t, a in zip(truth, anchors, strict=True):
            best = box_iou(t["boxes"], a).topk(2, dim=1).values
            assert (best[:, 0] - best[:, 1]).min() > 1e-5, "two best anchors: choose another SEED"
        matches = [
            net.proposal_matcher(box_iou(t["boxes"], a))
            for t, a in zip(truth, anchors, strict=True)
        ]
        losses = net.compute_loss(truth, outputs, anchors, matches)
        for i, (match, own) in enumerate(zip(matches, anchors, strict=True)):
            (positive,) = torch.where(match >= 0)
            codes = net.box_coder.encode_single(truth[i]["boxes"][match[positive]], own[positive])
            golden[f"match/{i}"] = match.to(torch.int8).numpy()
            golden[f"codes/{i}"] = codes.numpy()[:, [1, 0, 3, 2]]
        # Codes of a random net reach the clip of the sides; scores are near one another.
        found = net.postprocess_detections(outputs, anchors, Images.image_sizes)
    for key, theirs in (("boxes", "bbox_regression"), ("logits", "cls_logits")):
        value = outputs[theirs].numpy()[:, ::KEPT]
        golden[key] = value[..., [1, 0, 3, 2]] if key == "boxes" else value[..., ::7]
    golden["losses"] = np.array([losses["bbox_regression"], losses["classification"]])
    golden["anchors"] = anchors[0].numpy()[::KEPT, [1, 0, 3, 2]] / SIDE
    for i, one in enumerate(found):
        golden[f"found/{i}/boxes"] = one["boxes"].numpy()[:, [1, 0, 3, 2]] / SIDE
        golden[f"found/{i}/scores"] = one["scores"].numpy()
        golden[f"found/{i}/labels"] = one["labels"].numpy() - 1
        print(f"image {i}: {len(one['scores'])} found, scores to {one['scores'].max():.3f}")
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size:,} bytes; losses {golden['losses']}")


if __name__ == "__main__":
    main()
