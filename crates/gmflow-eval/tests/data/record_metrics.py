"""Records scores.json and features.safetensors beside this file, which tests/metrics.rs compares with.

    pip install torch-fidelity==0.4.0 prdc scipy safetensors
    python record_metrics.py

Features are synthetic: two clouds of correlated numbers that overlap in part. FID, KID, Inception Score, precision and recall are those of
torch-fidelity, density and coverage those of prdc. Distances for the latter two are in f64.
`kernel_far` is a KID in extended precision of 0.01 of the same features plus 1000.
"""

import json
import pathlib

import numpy as np
import torch
from prdc import compute_prdc
from safetensors.numpy import save_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)
D = 24
mix = rng.normal(size=(D, D)) / np.sqrt(D)
real = (rng.normal(size=(310, D)) @ mix + 3.0).astype(np.float32)
fake = (rng.normal(size=(270, D)) @ (mix * np.linspace(0.5, 1.3, D)) + 3.2).astype(np.float32)
logits = (2.0 * rng.normal(size=(203, 11))).astype(np.float32)
save_file({"real": real, "fake": fake, "logits": logits}, HERE / "features.safetensors")

t = torch.from_numpy
scores = {}
stats = [fid_features_to_statistics(t(x.astype(np.float64))) for x in (fake, real)]
scores["frechet"] = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
few = [fid_features_to_statistics(t(x[:10].astype(np.float64))) for x in (fake, real)]
scores["frechet_of_ten"] = fid_statistics_to_metric(*few, verbose=False)["frechet_inception_distance"]
kid = dict(kid_subsets=13, kid_subset_size=100, rng_seed=2020, verbose=False)
got = kid_features_to_metric(t(fake.astype(np.float64)), t(real.astype(np.float64)), **kid)
scores["kernel"] = [got["kernel_inception_distance_mean"], got["kernel_inception_distance_std"]]
far = [(x * np.float32(0.01) + np.float32(1000)).astype(np.longdouble) for x in (fake, real)]
subsets, state = [], np.random.RandomState(2020)
for _ in range(13):
    x, y = (v[state.choice(len(v), 100, replace=False)] for v in far)
    xx, yy, xy = ((np.einsum("ik,jk->ij", a, b) / D + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    subsets.append((xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (100 * 99) - 2 * xy.sum() / 100**2)
scores["kernel_far"] = [float(np.mean(subsets)), float(np.std(subsets))]
got = isc_features_to_metric(t(logits), splits=10, shuffle=True, rng_seed=2020)
scores["inception_score"] = [got["inception_score_mean"], got["inception_score_std"]]
got = prc_features_to_metric(t(fake.astype(np.float64)), t(real.astype(np.float64)), prc_neighborhood=3, verbose=False)
scores["precision"], scores["recall"] = got["precision"], got["recall"]
got = compute_prdc(real.astype(np.float64), fake.astype(np.float64), nearest_k=5)
scores["density"], scores["coverage"] = float(got["density"]), float(got["coverage"])
scores["permutation"] = np.random.RandomState(2020).permutation(12).tolist()
(HERE / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
print(scores)
