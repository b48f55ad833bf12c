"""The atlas of a finished run: the pictures in the order that A_G's vectors put them in.

Three sheets: the training pictures nearest to some that were made, which shows copies; clusters of the real ones
(k-means); and a map on which what looks alike to A_G lies together (t-SNE, van der Maaten and Hinton 2008). The
arithmetic is scikit-learn's. At most 5,000 pictures are looked at and 1,000 drawn on the map, whatever the data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from chatbot.aigc.captions import Captions
from chatbot.aigc.dataset import Dataset
from chatbot.aigc.networks import Autoencoder, Generator, PictureEncoder, Shape
from chatbot.aigc.pictures import as_batch, grid, to_images

FOLDER = "atlas"

_MOST, _MAPPED = 5_000, 1_000
_MADE, _NEAREST = 12, 6
_CLUSTERS, _EXAMPLES = 12, 12
_THUMB = 40  # pixels, of a picture on the map
_ROOM = 1.7  # places on the map for each picture
_SEED = 4_321

Places = NDArray[np.intp]


@torch.no_grad()
def draw(
    run: Path,
    shape: Shape,
    tensors: Mapping[str, Tensor],
    data: Dataset,
    captions: Captions,
    device: torch.device,
) -> str:
    """Write nearest.png, clusters.png and map.png of a checkpoint to run/atlas; gives the part of the report's page
    that shows them."""
    a_g = PictureEncoder(shape).to(device)
    g = Generator(shape).to(device)
    a_g.load_state_dict(_part(tensors, "a_g/"))
    g.load_state_dict(_part(tensors, "ema/"))
    train = data.split("train")
    shown = _spread(train, _MOST)
    real = _vectors(a_g, shape, [_reals(run, shape, data, part, device) for part in _parts(shown)])
    asked = _spread(shown, _MADE)
    made = _make(g, shape, data, captions, asked, device)
    (run / FOLDER).mkdir(parents=True, exist_ok=True)
    images = to_images(_decoded(made, shape, tensors, device))
    nearest = _nearest(_vectors(a_g, shape, [made]), real)
    rows = [[image, *_images(data, [shown[n] for n in near])] for image, near in zip(images, nearest, strict=True)]
    grid([image for row in rows for image in row], len(rows[0])).save(run / FOLDER / "nearest.png")
    sizes = _draw_clusters(real, shown, data, run / FOLDER / "clusters.png")
    on_map = _spread(range(len(shown)), _MAPPED)
    _draw_map(real[on_map], _images(data, [shown[n] for n in on_map])).save(run / FOLDER / "map.png")
    seen = f"{len(shown)} of {len(train)}" if len(shown) < len(train) else f"all {len(train)}"
    return (
        f"<h2>Atlas</h2><p>By A_G's vectors, of {seen} training pictures.</p><h3>Nearest</h3><p>In each row: one "
        f'that was made, then the training pictures nearest to it.</p><img src="{FOLDER}/nearest.png" alt="">'
        f"<h3>Clusters</h3><p>A row of examples each, of {', '.join(map(str, sizes))} pictures.</p>"
        f'<img src="{FOLDER}/clusters.png" alt=""><h3>Map</h3><p>{len(on_map)} pictures; what lies together looks '
        f'alike to A_G.</p><img src="{FOLDER}/map.png" alt="">'
    )


def left_out() -> str:
    """The part of the page where A_G was not trained."""
    return "<h2>Atlas</h2><p>Left out: with --lambda-g 0 A_G is not trained, and its vectors mean nothing.</p>"


def places(points: NDArray[np.float64]) -> tuple[Places, int]:
    """Cells (n, 2) of a square board for points (n, 2), no two in one, and the board's side: those in the middle
    first, each in the free cell nearest to it."""
    side = math.ceil(math.sqrt(_ROOM * len(points)))
    low, high = points.min(0), points.max(0)
    scaled = (points - low) / np.maximum(high - low, 1e-12) * (side - 1)
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    free = np.ones(len(cells), bool)
    taken = np.zeros((len(points), 2), np.intp)
    for number in np.square(scaled - (side - 1) / 2).sum(1).argsort(kind="stable"):
        away = np.where(free, np.square(cells - scaled[number]).sum(1), np.inf)
        best = int(away.argmin())
        free[best] = False
        taken[number] = cells[best]
    return taken, side


def _reals(run: Path, shape: Shape, data: Dataset, numbers: Sequence[int], device: torch.device) -> Tensor:
    """Pictures as A_G reads them: their latents, or in the space of pixels themselves."""
    if shape.space != "latent":
        return as_batch(data.pictures, numbers, device)
    latents = np.load(run / "data" / "latents.npy", mmap_mode="r")
    return torch.from_numpy(latents[0][list(numbers)]).float().to(device)


def _vectors(a_g: PictureEncoder, shape: Shape, batches: Sequence[Tensor]) -> NDArray[np.float64]:
    """(N, 256) of unit length; without captions these are not trained, and the codes' means (N, code) stand in."""
    found = []
    for batch in batches:
        mean, _, looks = a_g(batch)
        found.append((looks if shape.text else mean).cpu())
    return torch.cat(found).double().numpy()


def _make(
    g: Generator, shape: Shape, data: Dataset, captions: Captions, numbers: Sequence[int], device: torch.device
) -> Tensor:
    codes = torch.randn(len(numbers), shape.code, generator=torch.Generator().manual_seed(_SEED))
    styles = torch.tensor([data.styles.index(data.items[n].style) for n in numbers])
    made: Tensor = g(codes.to(device), captions.name_vectors(numbers).to(device), styles.to(device))
    return made


def _decoded(made: Tensor, shape: Shape, tensors: Mapping[str, Tensor], device: torch.device) -> Tensor:
    if shape.space != "latent":
        return made
    autoencoder = Autoencoder(shape).to(device)
    autoencoder.load_state_dict(_part(tensors, "autoencoder/"))
    return autoencoder.decode(made)


def _nearest(points: NDArray[np.float64], among: NDArray[np.float64]) -> list[list[int]]:
    away = torch.cdist(torch.from_numpy(points), torch.from_numpy(among))
    near: list[list[int]] = away.topk(min(_NEAREST, len(among)), largest=False).indices.tolist()
    return near


def _draw_clusters(vectors: NDArray[np.float64], numbers: Sequence[int], data: Dataset, path: Path) -> list[int]:
    """A row of each cluster's most typical pictures, the largest first; gives how many each has."""
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where pictures are too alike for so many clusters
        found = KMeans(min(_CLUSTERS, len(vectors)), n_init=1, random_state=0).fit(vectors)
    away = found.transform(vectors)
    sizes = np.bincount(found.labels_, minlength=len(found.cluster_centers_))
    blank = Image.new("RGBA", (data.pictures.shape[2], data.pictures.shape[1]))
    cells: list[Image.Image] = []
    largest = [int(cluster) for cluster in (-sizes).argsort(kind="stable") if sizes[cluster]]
    for cluster in largest:
        members = np.flatnonzero(found.labels_ == cluster)
        typical = members[away[members, cluster].argsort(kind="stable")][:_EXAMPLES]
        cells += _images(data, [numbers[n] for n in typical]) + [blank] * (_EXAMPLES - len(typical))
    grid(cells, _EXAMPLES).save(path)
    return [int(sizes[cluster]) for cluster in largest]


def _draw_map(vectors: NDArray[np.float64], images: Sequence[Image.Image]) -> Image.Image:
    cells, side = places(_flat(vectors))
    sheet = Image.new("RGB", (side * _THUMB, side * _THUMB), (236, 236, 236))
    for (column, row), image in zip(cells.tolist(), images, strict=True):
        small = image.resize((_THUMB - 2, _THUMB - 2), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * _THUMB + 1, row * _THUMB + 1), small if small.mode == "RGBA" else None)
    return sheet


def _flat(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) of vectors (n, d): t-SNE's, or for a handful their principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vectors all alike divide by their deviation
        if len(vectors) < 10:
            points = PCA(2, random_state=0).fit_transform(vectors)
        else:
            points = TSNE(perplexity=min(30, (len(vectors) - 1) / 3), init="pca", random_state=0).fit_transform(
                vectors
            )
    flat: NDArray[np.float64] = np.nan_to_num(points).astype(np.float64)
    return flat


def _images(data: Dataset, numbers: Sequence[int]) -> list[Image.Image]:
    return to_images(as_batch(data.pictures, numbers, torch.device("cpu")))


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, from first to last alike."""
    count = min(most, len(numbers))
    return [numbers[n * len(numbers) // count] for n in range(count)]


def _parts(numbers: Sequence[int], size: int = 256) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
