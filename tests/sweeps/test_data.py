"""What a person's folders become: disjoint parts, and keys that change only when the training does."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datasets.faces import open_faces
from datasets.kernels import open_kernels
from sweeps.deblurring.data import prepare_data
from sweeps.studies import Inputs, tables


def prepare(config, cache, faces, **tests):
    said = []
    data = prepare_data(config.data, train=str(faces), tests=tests, cache=cache, tell=said.append)
    return data, said


def rows(images):
    return {image.tobytes() for image in images}


def test_training_validation_and_test_share_no_face_and_no_kernel(tiny_data, cache):
    faces = [tiny_data.training.faces, tiny_data.training.validation_faces, tiny_data.tests[0].faces]
    parts = [rows(open_faces(digest, cache=cache).images) for digest in faces]
    assert [len(part) for part in parts] == [16, 4, 4]
    assert len(set.union(*parts)) == 24
    kernels = [tiny_data.training.kernels, tiny_data.training.validation_kernels, tiny_data.tests[0].kernels]
    shapes = [rows(np.asarray(open_kernels(digest, cache=cache).kernels)) for digest in kernels]
    assert not set.intersection(shapes[0], shapes[1])
    assert not set.intersection(shapes[0], shapes[2])
    assert not set.intersection(shapes[1], shapes[2])


def test_what_is_only_tested_on_changes_no_training(tiny_config, tiny_data, faces_folder, cache):
    other_kernels = replace(tiny_config, data=replace(tiny_config.data, test_kernels_per_size=3))
    changed, _ = prepare(other_kernels, cache, faces_folder, **{"Made up": str(faces_folder)})
    assert changed.training == tiny_data.training
    assert changed.tests[0].fingerprint != tiny_data.tests[0].fingerprint


def test_a_column_of_other_faces_changes_no_training(tiny_config, tiny_data, faces_folder, cache, tmp_path):
    for index in range(5):
        Image.new("RGB", (128, 128), (50 * index, 9, 9)).save(tmp_path / f"{index}.png")
    both, said = prepare(tiny_config, cache, faces_folder, **{"Made up": str(faces_folder), "Plain": str(tmp_path)})
    assert both.training == tiny_data.training
    assert both.tests[0] == tiny_data.tests[0]
    alone, _ = prepare(tiny_config, cache, faces_folder, Plain=str(tmp_path))
    assert alone.training == tiny_data.training
    assert said == []


def test_two_spellings_of_a_folder_are_one_set(tiny_config, tiny_data, faces_folder, cache):
    spelled = faces_folder / ".." / faces_folder.name
    data, _ = prepare(tiny_config, cache, faces_folder, **{"Made up": f"{spelled}/"})
    assert (data.training, data.tests) == (tiny_data.training, tiny_data.tests)


def test_the_blurred_input_of_other_tests_has_another_key(tiny_config, tiny_data, faces_folder, cache):
    def blurred(data):
        inputs = Inputs(config=tiny_config, data=data, seeds=[1], backbone_digest="", caption="")
        return tables(inputs).rows[0].stages[0].key

    other = replace(tiny_data, tests=(replace(tiny_data.tests[0], fingerprint="other"),))
    assert blurred(other) != blurred(tiny_data)


def test_terms_of_use_are_told_apart_from_what_the_data_are(tiny_data):
    assert tiny_data.licences == ("The terms of the folder's owner apply.",)
    [note] = tiny_data.notes
    assert note.startswith("Trained on 16 faces of ")


def test_no_face_left_to_train_on_is_a_mistake(tiny_config, faces_folder, cache):
    greedy = replace(tiny_config, data=replace(tiny_config.data, test_faces=20, validation_faces=4))
    with pytest.raises(ValueError, match=r"more than the 24 faces that are held out .* got 24"):
        prepare(greedy, cache, faces_folder)
