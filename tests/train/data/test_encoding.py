"""Encode once: what is encoded again, and what is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from influencerai.domain import TrainingSpec
from influencerai.errors import DatasetError
from influencerai.models.draws import SampleDraws
from influencerai.models.family import load_family
from influencerai.models.loadable_model import find_loadable_model
from influencerai.train.data.cache import TensorCache
from influencerai.train.data.encoding import encode_captions, encode_images, load_pixels, needed_variants
from influencerai.train.data.training_data import TrainingData
from influencerai.training_plan import TrainingPlan
from tests.small_models import small_sd15
from tests.training_runs import make_config, make_settings, make_spec, write_dataset


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sd15(tmp_path_factory.mktemp("model") / "sd15")


class Encoding:
    """One folder, one model, one cache; `run` says how many entries were made."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.dataset = write_dataset(root / "dataset")
        self.cache = TensorCache(root / "cache")

    def spec(self, **changes: Any) -> TrainingSpec:
        return make_spec(make_config(self.model, **changes), self.dataset, settings=make_settings(self.root))

    def run(self, spec: TrainingSpec) -> tuple[int, TrainingData]:
        before = self.entries()
        base = find_loadable_model(spec.model.name, models_dirs=())
        family = load_family(base.family)
        plan = TrainingPlan(spec)
        images, captions = needed_variants(spec, plan)
        latents = encode_images(
            spec,
            images,
            plan=plan,
            dataset_dir=self.dataset,
            base=base,
            family=family,
            cache=self.cache,
            max_pixels=10**8,
            emit=lambda event: None,
        )
        conditioning = encode_captions(
            spec, captions, base=base, family=family, cache=self.cache, emit=lambda event: None
        )
        data = TrainingData(spec, plan, latents=latents, conditioning=conditioning, device=torch.device("cpu"))
        return len(self.entries() - before), data

    def entries(self) -> set[Path]:
        return set((self.root / "cache").glob("*/*.tensors"))


@pytest.fixture
def encoding(tmp_path: Path, sd15: Path) -> Encoding:
    return Encoding(tmp_path, sd15)


@pytest.mark.slow
def test_a_second_run_encodes_nothing(encoding: Encoding) -> None:
    made, _ = encoding.run(encoding.spec())
    assert made == 5 + 5
    again, _ = encoding.run(encoding.spec(learningRate=0.01, epochs=3))
    assert again == 0


@pytest.mark.slow
def test_editing_one_image_encodes_that_one(encoding: Encoding) -> None:
    encoding.run(encoding.spec())
    Image.new("RGB", (150, 150), "teal").save(encoding.dataset / "02.png")
    made, _ = encoding.run(encoding.spec())
    assert made == 1


@pytest.mark.slow
def test_editing_one_caption_encodes_that_one(encoding: Encoding) -> None:
    encoding.run(encoding.spec())
    (encoding.dataset / "02.txt").write_text("ohwx woman, laughing")
    made, _ = encoding.run(encoding.spec())
    assert made == 1


@pytest.mark.slow
def test_another_resolution_encodes_every_image_and_no_caption(encoding: Encoding) -> None:
    encoding.run(encoding.spec())
    made, _ = encoding.run(encoding.spec(resolution=192))
    assert made == 5


@pytest.mark.slow
def test_another_precision_encodes_every_caption(encoding: Encoding) -> None:
    encoding.run(encoding.spec())
    made, _ = encoding.run(encoding.spec(meta={"precision": "bf16"}))
    assert made == 5


@pytest.mark.slow
def test_other_encoder_weights_encode_everything(encoding: Encoding, tmp_path: Path) -> None:
    encoding.run(encoding.spec())
    encoding.model = small_sd15(tmp_path / "other", seed=1)
    made, _ = encoding.run(encoding.spec())
    assert made == 10


@pytest.mark.slow
def test_a_damaged_entry_is_made_again(encoding: Encoding) -> None:
    spec = encoding.spec()
    encoding.run(spec)
    path = sorted(encoding.entries())[0]
    path.write_bytes(path.read_bytes()[:-10])
    good = path.stat().st_size
    encoding.run(spec)
    assert path.stat().st_size == good + 10


def test_every_variant_that_a_step_asks_for_was_enumerated(encoding: Encoding) -> None:
    meta = {"flip": True, "shuffleTags": True, "captionDropout": 0.3, "repeats": 2, "validationSplit": 0.2}
    spec = encoding.spec(epochs=3, meta=meta)
    made, data = encoding.run(spec)
    assert made > 10
    plan = TrainingPlan(spec)
    for step in range(plan.total_steps):
        for refs in plan.step(step).batches:
            batch = data.training_batch(step, refs)
            assert batch.conditioning is not None
            assert len(batch) == batch.latents.shape[0] == batch.conditioning["prompt_embeds"].shape[0]
    assert len(list(data.validation_batches())) == 4


@pytest.mark.slow
def test_flipped_samples_train_on_the_flipped_picture(encoding: Encoding) -> None:
    spec = encoding.spec(meta={"flip": True})
    _, data = encoding.run(spec)
    plan = TrainingPlan(spec)
    base = find_loadable_model(spec.model.name, models_dirs=())
    encoder = load_family("sd15").load_image_encoder(base, device=torch.device("cpu"))
    flips = 0
    for step in range(plan.total_steps):
        for refs in plan.step(step).batches:
            for row, ref in enumerate(refs):
                draws = SampleDraws(spec.options, step, ref)
                crop = plan.crop(ref.sample)
                pixels = load_pixels(
                    encoding.dataset, spec.samples[ref.sample], crop.resized, crop.box, max_pixels=10**8
                )
                mean, std = encoder(pixels.flip(-1) if draws.flip else pixels)
                expected = mean + std * draws.posterior(mean.shape)
                assert torch.equal(data.training_batch(step, refs).latents[row], expected)
                flips += draws.flip
    assert flips


@pytest.mark.slow
def test_an_image_that_changed_after_the_spec_is_refused(encoding: Encoding) -> None:
    spec = encoding.spec()
    Image.new("RGB", (150, 150), "teal").save(encoding.dataset / "02.png")
    with pytest.raises(DatasetError, match=r"02\.png has changed"):
        encoding.run(spec)


@pytest.mark.slow
def test_an_image_that_became_a_link_to_another_one_is_refused(encoding: Encoding, tmp_path: Path) -> None:
    spec = encoding.spec()
    (encoding.dataset / "02.png").unlink()
    (encoding.dataset / "02.png").symlink_to(tmp_path / "elsewhere.png")
    Image.new("RGB", (150, 150), "teal").save(tmp_path / "elsewhere.png")
    with pytest.raises(DatasetError, match=r"02\.png has changed"):
        encoding.run(spec)
    (encoding.dataset / "02.png").unlink()
    with pytest.raises(DatasetError, match=r"02\.png: The file cannot be read: No such file"):
        encoding.run(spec)


@pytest.mark.slow
def test_pixels_are_the_cropped_middle(tmp_path: Path, sd15: Path) -> None:
    dataset = tmp_path / "wide"
    dataset.mkdir()
    image = Image.new("RGB", (300, 150), "red")
    image.paste("blue", (75, 0, 225, 150))
    image.save(dataset / "a.png")
    config = make_config(sd15, meta={"aspectRatioBuckets": False})
    spec = make_spec(config, dataset, settings=make_settings(tmp_path))
    crop = TrainingPlan(spec).crop(0)
    pixels = load_pixels(dataset, spec.samples[0], crop.resized, crop.box, max_pixels=10**8)
    assert pixels.shape == (3, 128, 128)
    assert torch.allclose(pixels[:, 64, 64], torch.tensor([-1.0, -1.0, 1.0]))
    assert torch.allclose(pixels[:, 64, 4], torch.tensor([-1.0, -1.0, 1.0]), atol=0.2)
