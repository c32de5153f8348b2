//! Distances between sets of features: against torch-fidelity and prdc (recorded), and against closed forms.

use gmflow::pipeline::keep_going;
use gmflow_data::Density;
use gmflow_eval::numpy_rng::RandomState;
use gmflow_eval::points::{PointsConfig, PointsDistance, sliced_wasserstein};
use gmflow_eval::{
    ImageStatsSum, KernelDistanceConfig, MOST_COLUMNS, Manifolds, Matrix, Moments, Neighbours, frechet_distance,
    inception_score, kernel_distance, manifolds,
};
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use safetensors::SafeTensors;
use serde_json::Value;

fn recorded(name: &str) -> Matrix {
    let bytes = include_bytes!("data/features.safetensors");
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let values = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Matrix::new(values, view.shape()[1]).unwrap()
}

fn score(name: &str) -> Value {
    let scores: Value = serde_json::from_str(include_str!("data/scores.json")).unwrap();
    scores[name].clone()
}

fn moments(matrix: &Matrix) -> Moments {
    let mut moments = Moments::new(matrix.columns()).unwrap();
    moments.add(matrix).unwrap();
    moments
}

fn close(got: f64, expected: f64, relative: f64) {
    assert!((got - expected).abs() <= relative * expected.abs(), "{got} instead of {expected}");
}

fn normal(seed: u64, rows: usize, columns: usize) -> Matrix {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    Matrix::new((0..rows * columns).map(|_| rng.sample(StandardNormal)).collect(), columns).unwrap()
}

fn rows(matrix: &Matrix, range: std::ops::Range<usize>) -> Matrix {
    let d = matrix.columns();
    Matrix::new(matrix.values()[range.start * d..range.end * d].to_vec(), d).unwrap()
}

#[test]
fn scores_agree_with_torch_fidelity_and_prdc() {
    let (real, fake) = (recorded("real"), recorded("fake"));
    close(frechet_distance(&moments(&fake), &moments(&real)).unwrap(), score("frechet").as_f64().unwrap(), 1e-9);
    let config = KernelDistanceConfig { subsets: 13, subset_size: 100, seed: 2020 };
    let got = kernel_distance(&fake, &real, config).unwrap();
    close(got.mean, score("kernel")[0].as_f64().unwrap(), 1e-9);
    close(got.std, score("kernel")[1].as_f64().unwrap(), 1e-9);
    // Far from the origin, where the kernel's sums nearly cancel; recorded in extended precision.
    let far =
        |matrix: &Matrix| Matrix::new(matrix.values().iter().map(|x| x * 0.01 + 1000.0).collect(), matrix.columns());
    let got = kernel_distance(&far(&fake).unwrap(), &far(&real).unwrap(), config).unwrap();
    close(got.mean, score("kernel_far")[0].as_f64().unwrap(), 1e-6);
    close(got.std, score("kernel_far")[1].as_f64().unwrap(), 1e-6);
    let got = inception_score(&recorded("logits"), 10, 2020).unwrap();
    close(got.mean, score("inception_score")[0].as_f64().unwrap(), 1e-9);
    close(got.std, score("inception_score")[1].as_f64().unwrap(), 1e-9);
    let Manifolds { precision, recall, density, coverage, .. } =
        manifolds(&real, &fake, Neighbours::default(), &mut keep_going).unwrap();
    // The recorded shares of precision and recall are in f32.
    close(precision, score("precision").as_f64().unwrap(), 1e-7);
    close(recall, score("recall").as_f64().unwrap(), 1e-7);
    close(density, score("density").as_f64().unwrap(), 1e-12);
    close(coverage, score("coverage").as_f64().unwrap(), 1e-12);
}

#[test]
fn fewer_samples_than_dimensions_have_a_distance() {
    let [real, fake] = ["real", "fake"].map(|name| moments(&rows(&recorded(name), 0..10)));
    // The root of eigenvalues that are rounding around 0 stays in both.
    close(frechet_distance(&fake, &real).unwrap(), score("frechet_of_ten").as_f64().unwrap(), 1e-6);
}

#[test]
fn numpys_generator_is_numpys() {
    let expected: Vec<usize> = serde_json::from_value(score("permutation")).unwrap();
    assert_eq!(RandomState::new(2020).permutation(12), expected);
}

#[test]
fn gaussians_have_the_distance_of_the_formula() {
    // N(0, diag(1, 4)) and N((3, 0), diag(4, 1)): 9 + (1 - 2)^2 + (2 - 1)^2.
    let of =
        |mean: [f64; 2], [a, b]: [f64; 2]| Moments::from_covariance(10, mean.to_vec(), vec![a, 0.0, 0.0, b]).unwrap();
    close(frechet_distance(&of([0.0, 0.0], [1.0, 4.0]), &of([3.0, 0.0], [4.0, 1.0])).unwrap(), 11.0, 1e-12);
    let same = of([1.0, 2.0], [0.3, 0.0]);
    assert!(frechet_distance(&same, &same).unwrap().abs() < 1e-12);
}

#[test]
fn batches_and_merged_parts_have_the_moments_of_the_whole() {
    let all = normal(1, 1500, 7);
    let mut parts = moments(&rows(&all, 0..1));
    parts.add(&rows(&all, 1..700)).unwrap();
    parts.merge(&moments(&rows(&all, 700..1500))).unwrap();
    let (whole, parts) = (moments(&all), parts);
    assert_eq!(whole.count(), parts.count());
    let mean = |column: usize| (0..1500).map(|row| f64::from(all.row(row)[column])).sum::<f64>() / 1500.0;
    let covariance = |i: usize, j: usize| {
        let product = |row| (f64::from(all.row(row)[i]) - mean(i)) * (f64::from(all.row(row)[j]) - mean(j));
        (0..1500).map(product).sum::<f64>() / 1499.0
    };
    for set in [&whole, &parts] {
        let got = set.covariance().unwrap();
        for i in 0..7 {
            assert!((set.mean()[i] - mean(i)).abs() < 1e-12);
            for j in 0..7 {
                assert!((got[i * 7 + j] - covariance(i, j)).abs() < 1e-12);
            }
        }
    }
}

/// Precision, recall, density, coverage and copies from differences of all pairs.
fn by_definition(real: &Matrix, fake: &Matrix, k: usize) -> Manifolds {
    let distance = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>()
    };
    let radii = |set: &Matrix| -> Vec<f64> {
        let radius = |own: usize| {
            let others = (0..set.rows()).filter(|&row| row != own);
            let mut all: Vec<f64> = others.map(|row| distance(set.row(own), set.row(row))).collect();
            all.sort_by(f64::total_cmp);
            all[k - 1]
        };
        (0..set.rows()).map(radius).collect()
    };
    let (of_real, of_fake) = (radii(real), radii(fake));
    let share = |a: &Matrix, hit: &dyn Fn(usize) -> bool| {
        (0..a.rows()).filter(|&row| hit(row)).count() as f64 / a.rows() as f64
    };
    let within = |a: &Matrix, b: &Matrix, radii: &[f64]| {
        share(a, &|row| (0..b.rows()).any(|i| distance(a.row(row), b.row(i)) <= radii[i]))
    };
    let inside = |row: usize, i: usize| distance(fake.row(row), real.row(i)) < of_real[i];
    let mut nearest: Vec<f64> = (0..real.rows())
        .map(|i| {
            let others = (0..real.rows()).filter(|&j| j != i);
            others.map(|j| distance(real.row(i), real.row(j))).fold(f64::INFINITY, f64::min)
        })
        .collect();
    nearest.sort_by(f64::total_cmp);
    let copied = nearest[real.rows().div_ceil(1000) - 1];
    let balls: usize = (0..fake.rows()).map(|row| (0..real.rows()).filter(|&i| inside(row, i)).count()).sum();
    Manifolds {
        precision: within(fake, real, &of_real),
        recall: within(real, fake, &of_fake),
        density: balls as f64 / (k * fake.rows()) as f64,
        coverage: share(real, &|i| (0..fake.rows()).any(|row| inside(row, i))),
        copies: Some(share(fake, &|row| (0..real.rows()).any(|i| distance(fake.row(row), real.row(i)) <= copied))),
    }
}

#[test]
fn tiles_do_not_change_who_is_within_whose_neighbourhood() {
    // More rows than a tile has, against the definition.
    let (real, fake) = (normal(2, 1100, 3), normal(3, 1050, 3));
    let got = manifolds(&real, &fake, Neighbours { precision: 2, density: 2 }, &mut keep_going).unwrap();
    assert_eq!(got, by_definition(&real, &fake, 2));
}

#[test]
fn a_set_in_another_order_has_density_one() {
    // Of the k neighbours within a radius one is at the radius itself, which must not count, and the sample's own copy does.
    let (real, d) = (normal(6, 1100, 200), 200);
    let order = RandomState::new(1).permutation(real.rows());
    let values = order.iter().flat_map(|&row| real.row(row)).copied().collect();
    let fake = Matrix::new(values, d).unwrap();
    let got = manifolds(&real, &fake, Neighbours::default(), &mut keep_going).unwrap();
    assert_eq!(got, Manifolds { precision: 1.0, recall: 1.0, density: 1.0, coverage: 1.0, copies: Some(1.0) });
}

#[test]
fn copies_are_at_distance_zero() {
    // Eight copies of some: their radii are 0, in which copies lie (<=), but not strictly.
    let one = normal(7, 240, 256);
    let with_copies = |copied: usize, alone: std::ops::Range<usize>| {
        let copies = (0..copied).flat_map(|row| one.row(row).repeat(8));
        let alone = alone.flat_map(|row| one.row(row).to_vec());
        Matrix::new(copies.chain(alone).map(f32::abs).collect(), one.columns()).unwrap()
    };
    let (real, fake) = (with_copies(40, 40..140), with_copies(20, 140..240));
    let got = manifolds(&real, &fake, Neighbours { precision: 3, density: 3 }, &mut keep_going).unwrap();
    assert_eq!(got, by_definition(&real, &fake, 3));
}

#[test]
fn copies_are_counted_and_neighbours_are_not() {
    // 2,000 real samples, of which two are nearly the same: the 0.1 % quantile is their distance.
    let (mut values, d) = (normal(8, 2000, 8).values().to_vec(), 8);
    values[d] = values[0] + 1e-3;
    values.copy_within(1..d, d + 1);
    let real = Matrix::new(values, d).unwrap();
    let near = |i: usize, shift: f32| real.row(i).iter().map(move |value| value + shift);
    let fake = (0..10).flat_map(|i| near(i + 5, 1e-5)).chain((0..30).flat_map(|i| near(i + 50, 0.05)));
    let fake = Matrix::new(fake.collect(), d).unwrap();
    let got = manifolds(&real, &fake, Neighbours::default(), &mut keep_going).unwrap();
    assert_eq!((got.copies, got.precision), (Some(0.25), 1.0));
}

#[test]
fn sets_that_cannot_be_compared_are_refused() {
    let (narrow, wide) = (normal(4, 20, 3), normal(5, 20, 4));
    let message = frechet_distance(&moments(&narrow), &moments(&wide)).unwrap_err().to_string();
    assert!(message.contains("3 columns") && message.contains('4'), "{message}");
    let message = kernel_distance(&narrow, &narrow, KernelDistanceConfig::default()).unwrap_err().to_string();
    assert!(message.contains("subset_size") && message.contains("20") && message.contains("1000"), "{message}");
    assert!(manifolds(&narrow, &rows(&narrow, 0..4), Neighbours::default(), &mut keep_going).is_err());
    assert!(inception_score(&narrow, 21, 0).is_err());
    assert!(Matrix::new(vec![1.0, f32::NAN], 2).unwrap_err().to_string().contains("row 0"));
    assert!(Moments::new(3).unwrap().covariance().is_err());
    for d in [0, MOST_COLUMNS + 1, usize::MAX] {
        let message = Moments::new(d).unwrap_err().to_string();
        assert!(message.contains("columns") && message.contains(&d.to_string()), "{message}");
    }
}

#[test]
fn colours_are_those_of_the_definition() {
    let mut sum = ImageStatsSum::default();
    // Two pixels: pure red, and grey of one half; in [-1, 1], [c h w].
    sum.add(&[1.0, 0.0, -1.0, 0.0, -1.0, 0.0], [3, 1, 2]).unwrap();
    let stats = sum.stats().unwrap();
    assert_eq!(stats.saturation, Some(0.5));
    close(stats.brightness, (1.0 / 3.0 + 0.5) / 2.0, 1e-12);
    close(stats.contrast, (0.5 - 1.0 / 3.0) / 2.0, 1e-9);
    let mut grey = ImageStatsSum::default();
    grey.add(&[-1.0, 3.0], [1, 1, 2]).unwrap();
    let stats = grey.stats().unwrap();
    assert_eq!((stats.saturation, stats.brightness, stats.contrast), (None, 0.5, 0.5));
    assert!(grey.add(&[0.0; 3], [3, 1, 1]).is_err());
}

#[test]
fn points_of_the_density_are_near_it_and_others_are_far() {
    let board = Density::CHECKERBOARD;
    let own = PointsDistance::of(&board.sample(3, 9, 20_000), &board, PointsConfig::default()).unwrap();
    assert_eq!(own.outside, Some(0.0));
    assert!((own.total_variation / own.chance - 1.0).abs() < 0.1, "{own:?}");
    let shifted: Vec<[f32; 2]> = board.sample(3, 9, 20_000).iter().map(|&[x, y]| [x + 2.0, y]).collect();
    let other = PointsDistance::of(&shifted, &board, PointsConfig::default()).unwrap();
    assert_eq!(other.outside, Some(1.0));
    close(other.total_variation, 1.0, 1e-12);
    // Moved by 2 along x: 2 cos in each direction, and the mean of cos^2 is one half.
    let moved = sliced_wasserstein(&board.sample(3, 9, 5000), &shifted[..5000], 64).unwrap();
    close(moved, 2.0_f64.sqrt(), 0.02);
    let smooth = PointsDistance::of(
        &Density::CHECKERBOARD.sample(1, 1, 500),
        &Density::Moons { noise: 0.1 },
        PointsConfig::default(),
    );
    assert!(smooth.unwrap().total_variation > 0.5);
    assert!(sliced_wasserstein(&[[f32::NAN, 0.0]], &[[0.0, 0.0]], 4).is_err());
}
