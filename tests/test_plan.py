"""What a plan says, against the same by hand."""

import pytest
from mask_scenes import draw_scenes

import kzoo
from kzoo.recipes.cli import main
from kzoo.recipes.programs import plan as programs
from kzoo.recipes.programs.plan import Ask, Plan, plan, reading_speed, training_speed
from kzoo.recipes.programs.planned_tasks import classifier_train_size
from kzoo.recipes.training.memory import output_numbers


def planned(**options):
    """A million parameters; a device trains 100 images a second, a core reads 50."""
    ask = Ask(**{"images": 1_000_000, "epochs": 10, "batch_size": 64, "cores": 4} | options)
    return Plan(ask, 1_000_000, 50_000_000, 10_000_000, rate=100.0, reading=50.0, kb=100.0)


def test_one_device():
    found = planned()
    assert found.rates == pytest.approx(
        {"training": 100.0, "decoding and augmenting": 200.0, "reading files": 2000.0}
    )
    assert found.slowest == "training"
    assert found.hours == pytest.approx(27.78, abs=0.01)  # 10 M / 100 / 3600
    # 16 MB of weights, gradients, moments; 64 x 10 M x 4 bytes.
    assert found.memory == pytest.approx(0.016 + 2.56)
    assert "training:          100 images/s   <- the bottleneck" in str(found)
    assert str(found).startswith("About 27.8 hours for the whole network; training is the ")


def test_eight_devices_exchange_gradients():
    """2 x 7/8 x 4 MB over 10 Gbit/s: 5.6 ms beside the 80 of a step."""
    found = planned(devices=8)
    assert found.exchanged == pytest.approx(0.0056)
    assert found.rates["training"] == pytest.approx(64 / 0.0856)
    assert found.memory == pytest.approx(0.016 + 0.32)


def test_what_is_slowest_is_named():
    assert planned(cores=1).slowest == "decoding and augmenting"
    assert planned(disk=5.0).slowest == "reading files"


def test_memory_falls_by_parts_and_by_half_numbers():
    assert planned(accumulate=4).memory == pytest.approx(0.016 + 0.64)
    assert planned(precision="mixed_bfloat16").memory == pytest.approx(0.016 + 1.28)


def test_what_is_measured_and_counted_here():
    found = plan(
        Ask(model="mobilenet_v2", alpha=0.35, size=32, classes=4, batch_size=8, images=1000, rate=9)
    )
    cost = kzoo.profile(kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), classes=4))
    assert (found.parameters, found.macs) == (cost.trainable, cost.macs)
    assert found.rate == 9
    assert found.reading > 1
    assert 1 < found.kb < 100


def test_a_classifier_is_trained_on_smaller_images(monkeypatch):
    """.86 of 64 px is 55, of 16 px 48: what a step, reading and memory are of."""
    sizes = []
    monkeypatch.setattr(programs, "training_speed", lambda ask: sizes.append(ask.size) or 7.0)
    found = plan(Ask(model="mobilenet_v2", alpha=0.35, size=64, classes=4, kb=9))
    assert (sizes, found.ask.size, found.rate) == ([48], 64, 7.0)
    net = kzoo.MobileNetV2(0.35, input_shape=(48, 48, 3), classes=4)
    assert found.outputs == output_numbers(net)
    assert "64 px, 4 classes" in str(found)
    assert "trained on images of 48 px" in str(found)


def test_a_hybrid_is_trained_at_its_one_size():
    ask = Ask(model="mobilenet_v4_hybrid_medium", size=224, classes=3)
    assert classifier_train_size(ask) == 224


@pytest.mark.parametrize(
    ("task", "options", "size"),
    [("detect", {}, 320), ("segment", {"head": "deeplabv3+", "filters": 8}, 256)],
)
def test_a_net_of_another_task(task, options, size):
    """Its parameters are those of the net that the task builds."""
    found = plan(
        Ask(task=task, model="mobilenet_v3_small", alpha=0.5, classes=3, rate=5.0, **options)
    )
    backbone = kzoo.MobileNetV3Small(
        0.5, input_shape=(size, size, 3), include_top=False,
        **({"output_stride": 16} if task == "segment" else {}),
    )  # fmt: skip
    extras = [max(16, n // 2) for n in (512, 256, 256, 128)]
    build = {
        "detect": lambda: kzoo.SSDLite(backbone, 3, extras=extras),
        "segment": lambda: kzoo.DeepLabV3(backbone, 3, decoder=True, fine=True, filters=8),
    }
    assert found.parameters == kzoo.profile(build[task]()).trainable
    assert f"{task}: mobilenet_v3_small at alpha 0.5 and {size} px, 3 classes" in str(found)


def test_a_step_of_another_task_is_measured():
    for task in ("detect", "segment"):
        ask = Ask(task=task, model="mobilenet_v3_small_minimalistic", alpha=0.35, size=64,
                  classes=2, batch_size=2)  # fmt: skip
        assert training_speed(ask) > 0


def test_reading_of_masks_is_measured(tmp_path):
    draw_scenes(tmp_path, train=4, val=2, side=64, shapes=("circle",))
    rate, kb = reading_speed(Ask(task="segment", size=64, data=str(tmp_path)))
    sizes = [file.stat().st_size for file in (tmp_path / "train" / "images").iterdir()]
    assert rate > 1
    assert kb == pytest.approx(sum(sizes) / 4 / 1e3)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--images", "0"], "images must be at least 1"),
        (["--pictures", "0"], "images must be at least 1"),  # what the flag was called
        (["--rate", "-1"], "rate must be greater than 0"),
        (["--devices", "5"], "multiple of devices times accumulate. Received: 32, 5 and 1"),
        (["--precision", "int4"], "precision must be one of"),
        (["--task", "pose"], "task must be one of classify, detect, segment. Received: 'pose'"),
    ],
)
def test_errors_say_what_to_change(capsys, words, complaint):
    assert main(["plan", *words]) == 1
    assert complaint in capsys.readouterr().err
