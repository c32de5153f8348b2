use gmflow_data::Density;
use gmflow_data::density::{histogram, total_variation};

const RANGE: [f32; 2] = [-4.0, 4.0];

const ALL: [Density; 5] = [
    Density::CHECKERBOARD,
    Density::Moons { noise: 0.1 },
    Density::Spirals { noise: 0.1 },
    Density::Rings { rings: 3, noise: 0.1 },
    Density::GaussianGrid { side: 5, std: 0.1 },
];

#[test]
fn the_filled_squares_are_the_published_ones() {
    let board = Density::CHECKERBOARD;
    // Square (column, row) from the lower left corner is filled when column + row is even.
    for (column, row) in (0..4).flat_map(|column| (0..4).map(move |row| (column, row))) {
        let centre = [2.0 * column as f32 - 3.0, 2.0 * row as f32 - 3.0];
        assert_eq!(board.contains(centre), Some((column + row) % 2 == 0), "{column} {row}");
    }
    for outside in [[4.5, 4.5], [-4.5, -3.0], [f32::NAN, -3.0], [f32::INFINITY, 3.0]] {
        assert_eq!(board.contains(outside), Some(false), "{outside:?}");
    }
}

#[test]
fn samples_stay_in_the_squares_and_fill_them_evenly() {
    for squares in [2, 4, 5] {
        let board = Density::Checkerboard { scale: 4.0, squares };
        let points = board.sample(1, 0, 400_000);
        assert_eq!(board.outside_fraction(&points), Some(0.0));
        // 7 bins do not line up with the squares, so partial overlaps count too.
        for bins in [7, 32] {
            let masses = board.bin_masses(bins, RANGE).unwrap();
            assert!((masses.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let distance = total_variation(&histogram(&points, bins, RANGE), &masses).unwrap();
            // What sampling noise alone gives is about sqrt(bins / (2 pi n)) = 0.014 for 512 filled bins.
            assert!(distance < 0.02, "{squares} squares, {bins} bins: {distance}");
        }
    }
}

#[test]
fn the_board_may_reach_beyond_the_range() {
    let board = Density::CHECKERBOARD;
    let range = [-3.0, 2.5];
    let masses = board.bin_masses(9, range).unwrap();
    let counted = histogram(&board.sample(2, 0, 400_000), 9, range);
    let inside = 1.0 - counted.outside as f64 / counted.total() as f64;
    assert!((masses.iter().sum::<f64>() - inside).abs() < 3e-3);
    assert!(total_variation(&counted, &masses).unwrap() < 0.01);
}

#[test]
fn total_variation_of_known_sets() {
    let board = Density::CHECKERBOARD;
    let masses = board.bin_masses(32, RANGE).unwrap();
    let distance = |points: &[[f32; 2]]| total_variation(&histogram(points, 32, RANGE), &masses).unwrap();
    // Everything in an empty square; everything outside the range.
    assert!((distance(&[[-1.0, -3.0]]) - 1.0).abs() < 1e-12);
    assert!((distance(&[[9.0, 0.0]]) - 1.0).abs() < 1e-12);
    assert!((distance(&[[f32::NAN, 0.0]]) - 1.0).abs() < 1e-12);
    // A perfect sample of which half is lost is at distance one half, and none is left out of the count.
    let perfect: Vec<[f32; 2]> = masses
        .iter()
        .enumerate()
        .filter(|(_, mass)| **mass > 0.0)
        .map(|(bin, _)| [(bin % 32) as f32 / 4.0 - 3.9, (bin / 32) as f32 / 4.0 - 3.9])
        .collect();
    assert!(distance(&perfect) < 1e-12);
    let lost: Vec<[f32; 2]> = perfect.iter().flat_map(|&point| [point, [100.0, 0.0]]).collect();
    assert!((distance(&lost) - 0.5).abs() < 1e-12);
    assert_eq!(board.outside_fraction(&lost), Some(0.5));
    assert_eq!(board.outside_fraction(&[]), None);
    assert!(total_variation(&histogram(&[], 32, RANGE), &masses).is_err());
    assert!(total_variation(&histogram(&perfect, 31, RANGE), &masses).is_err());
}

#[test]
fn bins_are_counted_row_by_row_from_below() {
    let counted = histogram(&[[-3.5, -3.5], [3.5, -3.5], [-3.5, 3.5], [4.0, 0.0]], 2, RANGE);
    assert_eq!((counted.counts, counted.outside), (vec![1, 1, 1, 0], 1));
    assert_eq!(histogram(&[[0.0, 0.0]], 2, [4.0, -4.0]).outside, 1);
    assert_eq!(histogram(&[[0.0, 0.0]], 0, RANGE).outside, 1);
}

#[test]
fn draws_are_a_function_of_seed_and_step() {
    for density in ALL {
        let points = density.sample(7, 11, 64);
        assert_eq!(points, density.sample(7, 11, 64));
        assert_eq!(points[..16], density.sample(7, 11, 16));
        assert_ne!(points, density.sample(8, 11, 64));
        assert_ne!(points, density.sample(7, 12, 64));
    }
}

#[test]
fn every_density_fills_the_plot_and_is_centred() {
    for density in ALL {
        density.validate().unwrap();
        let points = density.sample(1, 0, 50_000);
        let beyond = points.iter().flatten().filter(|value| value.abs() > 4.0).count();
        assert!(beyond < 50, "{density:?}: {beyond}");
        for axis in 0..2 {
            let mean = points.iter().map(|point| f64::from(point[axis])).sum::<f64>() / 50_000.0;
            let square = points.iter().map(|point| f64::from(point[axis]).powi(2)).sum::<f64>() / 50_000.0;
            assert!(mean.abs() < 0.05, "{density:?}: {mean}");
            assert!(square > 0.4, "{density:?}: {square}");
        }
    }
}

#[test]
fn rings_have_their_radii() {
    let points = Density::Rings { rings: 2, noise: 0.0 }.sample(1, 0, 1000);
    let radii: Vec<f32> = points.iter().map(|[x, y]| x.hypot(*y)).collect();
    assert!(radii.iter().all(|radius| (radius - 1.75).abs() < 1e-5 || (radius - 3.5).abs() < 1e-5));
    let inner = radii.iter().filter(|radius| **radius < 2.0).count();
    assert!((400..600).contains(&inner), "{inner}");
}

#[test]
fn settings_outside_their_domain_are_named() {
    let bad = [
        (Density::Checkerboard { scale: 0.0, squares: 4 }, "scale"),
        (Density::Checkerboard { scale: f32::NAN, squares: 4 }, "scale"),
        (Density::Checkerboard { scale: 4.0, squares: 1 }, "squares"),
        (Density::Moons { noise: -1.0 }, "noise"),
        (Density::Rings { rings: 0, noise: 0.1 }, "rings"),
        (Density::GaussianGrid { side: 65, std: 0.1 }, "side"),
    ];
    for (density, field) in bad {
        assert!(density.validate().unwrap_err().to_string().starts_with(field), "{density:?}");
    }
}
