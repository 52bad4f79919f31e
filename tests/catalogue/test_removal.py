"""What goes when a model is removed, and above all what stays."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from tests.catalogue.samples import adapter_folder, gguf_file, in_cache, model_folder, names_in
from vllm_circus.catalogue.find import find_models
from vllm_circus.catalogue.removal import NotRemovable, Removal, carry_out, plan_removal
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.facts import Disk

SIZE = 1 << 20


def found(tmp_path: Path, *folders: Path) -> tuple[LocalModel, ...]:
    return find_models(folders, {"HF_HOME": str(tmp_path / "hf")}, Disk())


def removal_of(tmp_path: Path, name: str, *folders: Path) -> Removal:
    models = found(tmp_path, *folders)
    return plan_removal(next(model for model in models if model.id == name), models, folders)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub"


def source(tmp_path: Path, size: int = SIZE) -> Path:
    return model_folder(tmp_path / f"source{size}", size=size)


def test_the_last_revision_takes_the_repository_with_it(tmp_path: Path, hub: Path) -> None:
    home = in_cache(hub, "o/m", source(tmp_path))
    (hub / ".locks" / home.name).mkdir(parents=True)
    in_cache(hub, "o/n", source(tmp_path))
    removal = removal_of(tmp_path, "o/m")
    assert SIZE < removal.size < SIZE + 4096
    assert carry_out(removal) == removal.size
    assert sorted(path.name for path in hub.iterdir()) == [".locks", "models--o--n"]
    assert not list((hub / ".locks").iterdir())
    assert names_in(found(tmp_path)) == ["o/n"]


def test_blobs_that_another_revision_has_stay(tmp_path: Path, hub: Path) -> None:
    in_cache(hub, "o/m", source(tmp_path, SIZE), "old", ref="v1")
    home = in_cache(hub, "o/m", source(tmp_path, 2 * SIZE), "new")
    removal = removal_of(tmp_path, "o/m")
    assert removal.notes == ("1 other revision and what they share with it stay",)
    carry_out(removal)
    (left,) = found(tmp_path)
    assert (left.revision, left.commit, left.complete) == ("v1", "old", True)
    assert 2 * SIZE not in {blob.stat().st_size for blob in (home / "blobs").iterdir()}
    assert not (home / "refs" / "main").exists()


def test_one_gguf_file_of_several_goes_alone(tmp_path: Path, hub: Path) -> None:
    files = tmp_path / "files"
    gguf_file(files / "m-Q4_0.gguf", SIZE)
    gguf_file(files / "m-Q8_0.gguf", 2 * SIZE)
    home = in_cache(hub, "o/m", files)
    removal = removal_of(tmp_path, "o/m:Q8_0")
    assert removal.size == 2 * SIZE
    carry_out(removal)
    assert names_in(found(tmp_path)) == ["o/m:Q4_0"]
    carry_out(removal_of(tmp_path, "o/m:Q4_0"))
    assert not home.exists()


def test_half_a_download_goes_and_an_earlier_revision_stays(tmp_path: Path, hub: Path) -> None:
    home = in_cache(hub, "o/m", source(tmp_path), "old")
    (home / "refs" / "main").write_text("new")
    (home / "blobs" / "ab.incomplete").write_bytes(bytes(100))
    removal = removal_of(tmp_path, "o/m")
    assert (removal.size, removal.notes) == (100, ("earlier revisions stay",))
    carry_out(removal)
    assert (home / "snapshots" / "old" / "config.json").exists()


def shared(hub: Path, home: Path, digest: str = "ab" + "0" * 62) -> Path:
    """The repository's weights moved into the cache's common store, as the library does it."""
    payload = hub / "blobs" / digest[:2] / digest
    payload.parent.mkdir(parents=True, exist_ok=True)
    blob = max((home / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    if payload.exists():
        blob.unlink()
    else:
        blob.rename(payload)
    blob.symlink_to(os.path.relpath(payload, blob.parent))
    with payload.with_name(f"{digest}.refs").open("a") as manifest:
        manifest.write(f"{blob.relative_to(hub)}\n")
    return payload


def test_a_payload_that_repositories_share_goes_with_the_last_of_them(tmp_path: Path, hub: Path) -> None:
    payload = shared(hub, in_cache(hub, "o/m", source(tmp_path)))
    shared(hub, in_cache(hub, "o/n", source(tmp_path)))
    assert carry_out(removal_of(tmp_path, "o/m")) < SIZE
    assert payload.exists()
    assert next(iter(found(tmp_path))).complete
    assert carry_out(removal_of(tmp_path, "o/n")) > SIZE
    assert sorted(path.name for path in payload.parent.iterdir()) == [f"{payload.name}.lock"]


def test_a_payload_without_a_manifest_stays(tmp_path: Path, hub: Path) -> None:
    payload = shared(hub, in_cache(hub, "o/m", source(tmp_path)))
    payload.with_name(f"{payload.name}.refs").unlink()
    assert carry_out(removal_of(tmp_path, "o/m")) < SIZE
    assert payload.exists()


def test_the_payload_is_removed_under_the_library_s_lock(tmp_path: Path, hub: Path) -> None:
    filelock = pytest.importorskip("filelock")
    payload = shared(hub, in_cache(hub, "o/m", source(tmp_path)))
    carry_out(removal_of(tmp_path, "o/m"))
    with filelock.FileLock(payload.with_name(f"{payload.name}.lock")) as held:
        handle = os.open(held.lock_file, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is the same kind of lock as ours
        os.close(handle)


def test_a_folder_of_ones_own_goes_as_a_whole(tmp_path: Path) -> None:
    base = tmp_path / "models"
    model_folder(base / "m", size=SIZE)
    adapter_folder(base / "a", "o/m")
    removal = removal_of(tmp_path, str(base / "m"), base)
    assert removal.paths == (base / "m",)
    assert carry_out(removal) == removal.size > SIZE
    assert names_in(found(tmp_path, base)) == [str(base / "a")]


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "models", model_folder(tmp_path / "elsewhere", size=SIZE)
    base.mkdir()
    (base / "m").symlink_to(elsewhere)
    gguf_file(tmp_path / "x.gguf", SIZE)
    model_folder(base / "n", size=SIZE)
    (base / "n" / "data").symlink_to(elsewhere)
    (base / "x.gguf").symlink_to(tmp_path / "x.gguf")
    removal = removal_of(tmp_path, str(base / "m"), base)
    assert (removal.size, removal.notes) == (0, (f"{base / 'm'} is a link: what it leads to stays",))
    for name in ("m", "n", "x.gguf"):
        carry_out(removal_of(tmp_path, str(base / name), base))
    assert list(base.iterdir()) == []
    assert (elsewhere / "model.safetensors").stat().st_size == SIZE
    assert (tmp_path / "x.gguf").exists()


def test_a_folder_in_which_other_models_are_stays(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "models" / "m")
    adapter_folder(base / "checkpoint-1", "o/m")
    with pytest.raises(NotRemovable, match="other models are in") as caught:
        removal_of(tmp_path, str(base), tmp_path / "models")
    assert caught.value.hint == "remove those first"
    shutil.rmtree(base / "checkpoint-1")
    for folder in (base, base / "inner"):
        with pytest.raises(NotRemovable, match="is a folder of the settings, or holds one"):
            removal_of(tmp_path, str(base), *dict.fromkeys((base, folder)))


def test_a_gguf_file_beside_other_weights_does_not_go_with_them(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "models" / "m")
    gguf_file(base / "small.gguf")
    with pytest.raises(NotRemovable, match=r"other models are in .*small\.gguf"):
        removal_of(tmp_path, str(base), tmp_path / "models")
    carry_out(removal_of(tmp_path, str(base / "small.gguf"), tmp_path / "models"))
    carry_out(removal_of(tmp_path, str(base), tmp_path / "models"))
    assert not base.exists()


def test_a_model_that_was_looked_at_anew_is_not_taken_for_another(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "models" / "m")
    (before,), after = found(tmp_path, tmp_path / "models"), found(tmp_path, tmp_path / "models")
    assert plan_removal(before, after, [tmp_path / "models"]).paths == (base,)


def test_a_folder_that_is_only_called_like_one_of_the_cache_is_a_folder_like_others(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "models" / "models--o--m")
    adapter_folder(base / "checkpoint-1", "o/m")
    with pytest.raises(NotRemovable, match="other models are in"):
        removal_of(tmp_path, str(base), tmp_path / "models")


def test_a_repository_that_is_a_link_is_left_alone(tmp_path: Path, hub: Path) -> None:
    home = in_cache(hub, "o/m", source(tmp_path))
    home.rename(tmp_path / "moved")
    home.symlink_to(tmp_path / "moved")
    with pytest.raises(NotRemovable, match="is a link, to"):
        removal_of(tmp_path, "o/m")


def test_a_link_of_a_snapshot_that_leads_out_is_removed_alone(tmp_path: Path, hub: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(bytes(100))
    in_cache(hub, "o/m", source(tmp_path, SIZE), "old", ref="v1")
    home = in_cache(hub, "o/m", source(tmp_path, 2 * SIZE), "new")
    (home / "snapshots" / "new" / "extra.safetensors").symlink_to(outside)
    carry_out(removal_of(tmp_path, "o/m"))
    assert outside.exists()
