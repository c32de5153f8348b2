//! The outline of every class, as a distance in the plane, and how a picture is filled from it. Only sums, products and square
//! roots: these round alike on every machine, so a picture has the same bytes everywhere.

use rand::{Rng, RngExt};

/// The classes, in the order of their labels and of the alphabet, so that a folder with one subfolder per class has the same order.
pub(super) const CLASSES: [&str; 6] = ["circle", "cross", "ring", "square", "star", "triangle"];

/// A point in the plane; y grows downwards.
type Point = [f64; 2];

const COS_36: f64 = 0.809_016_994_374_947_4;
const SIN_36: f64 = 0.587_785_252_292_473_1;
const COS_30: f64 = 0.866_025_403_784_438_6;

/// The distance of a point to the outline of a figure of radius 1 around the origin; negative inside.
fn distance(class: usize, [x, y]: Point) -> f64 {
    let radius = (x * x + y * y).sqrt();
    let [width, height] = [x.abs(), y.abs()];
    match CLASSES.get(class).copied() {
        Some("cross") => (width - 0.3).max(height - 0.95).min((width - 0.95).max(height - 0.3)),
        Some("ring") => (radius - 0.75).abs() - 0.22,
        Some("square") => width.max(height) - 0.8,
        Some("star") => star([width, y]),
        // Corners at distance 1: one above, two below.
        Some("triangle") => (y - 0.5).max(COS_30 * width - 0.5 * y - 0.5),
        _ => radius - 0.9,
    }
}

/// A star with five tips at distance 1, one above; `x` is not negative.
fn star([x, y]: Point) -> f64 {
    // Mirrors at the lines between the tips bring every point to the tip above.
    let mirrored = |[x, y]: Point, [nx, ny]: Point| {
        let beyond = (x * nx + y * ny).max(0.0);
        [x - 2.0 * beyond * nx, y - 2.0 * beyond * ny]
    };
    let [x, y] = mirrored([x, y], [COS_36, SIN_36]);
    let [x, y] = mirrored([x, y], [-COS_36, SIN_36]);
    // From the tip (0, -1) to the notch at distance 0.45.
    let notch = [0.45 * SIN_36, -0.45 * COS_36];
    let along = [notch[0], notch[1] + 1.0];
    let length = (along[0] * along[0] + along[1] * along[1]).sqrt();
    (x.abs() * along[1] - (y + 1.0) * along[0]) / length
}

/// Where a figure stands and what colours the picture has.
pub(super) struct Scene {
    class: usize,
    /// In parts of the picture's side.
    centre: Point,
    radius: f64,
    /// Cosine and sine of the tilt.
    tilt: Point,
    figure: [f64; 3],
    /// The background at the two ends of a gradient, and its direction.
    background: [[f64; 3]; 2],
    direction: Point,
}

impl Scene {
    /// Draws everything but the class.
    pub(super) fn draw(class: usize, rng: &mut impl Rng) -> Self {
        let mut between = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
        let radius = between(0.28, 0.42);
        let mut place = || between(radius + 0.04, 0.96 - radius);
        let centre = [place(), place()];
        let tilt = unit([1.0, between(-0.3, 0.3)]);
        let figure = colour(between(0.0, 6.0), between(0.75, 1.0), between(0.45, 0.85));
        let hue = between(0.0, 6.0);
        let background = [0, 1].map(|_| colour(hue + between(-0.5, 0.5), between(0.0, 0.2), between(0.85, 1.0)));
        let direction = unit([between(0.1, 1.0), between(-1.0, 1.0)]);
        Self { class, centre, radius, tilt, figure, background, direction }
    }

    /// The bytes of the picture, channels last. `[h w 3]`
    pub(super) fn paint(&self, size: usize) -> Vec<u8> {
        let side = size as f64;
        let mut bytes = Vec::with_capacity(size * size * 3);
        for row in 0..size {
            for column in 0..size {
                let [x, y] = [column, row].map(|at| (at as f64 + 0.5) / side);
                let [left, down] = [x - self.centre[0], y - self.centre[1]].map(|offset| offset / self.radius);
                let turned = [left * self.tilt[0] + down * self.tilt[1], down * self.tilt[0] - left * self.tilt[1]];
                // A pixel on the outline is covered in proportion to the distance of its centre: smooth edges.
                let pixels = distance(self.class, turned) * self.radius * side;
                let covered = (0.5 - pixels).clamp(0.0, 1.0);
                let along = ((x - 0.5) * self.direction[0] + (y - 0.5) * self.direction[1] + 0.75) / 1.5;
                for channel in 0..3 {
                    let [first, second] = self.background.map(|colour| colour[channel]);
                    let behind = first + (second - first) * along;
                    let value = behind + (self.figure[channel] - behind) * covered;
                    bytes.push((value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
                }
            }
        }
        bytes
    }
}

fn unit([x, y]: Point) -> Point {
    let length = (x * x + y * y).sqrt();
    [x / length, y / length]
}

/// Red, green and blue in [0, 1] of a hue on a circle of 6 (0 red, 2 green, 4 blue), a saturation and a brightness.
fn colour(hue: f64, saturation: f64, brightness: f64) -> [f64; 3] {
    [0.0, 4.0, 2.0].map(|offset| {
        let around = (hue + offset + 6.0) % 6.0;
        let pure = ((around - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        brightness * (1.0 - saturation * (1.0 - pure))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of [-1, 1] x [-1, 1] that a figure covers.
    fn area(class: usize) -> f64 {
        let steps = 400;
        let at = |i: i32| (f64::from(i) + 0.5) / f64::from(steps) * 2.0 - 1.0;
        let points = (0..steps).flat_map(|i| (0..steps).map(move |j| [at(i), at(j)]));
        points.filter(|&point| distance(class, point) < 0.0).count() as f64 / f64::from(steps * steps) * 4.0
    }

    #[test]
    fn the_figures_have_the_areas_of_their_kinds() {
        use std::f64::consts::PI;
        // Circle; two bars less their common square; two circles; square; ten triangles between tip, notch and centre; a
        // triangle with its corners on the unit circle.
        let exact = [
            PI * 0.81,
            2.0 * 0.6 * 1.9 - 0.36,
            PI * (0.97 * 0.97 - 0.53 * 0.53),
            2.56,
            5.0 * 0.45 * SIN_36,
            3.0 * 3f64.sqrt() / 4.0,
        ];
        for (class, exact) in exact.into_iter().enumerate() {
            assert!((area(class) - exact).abs() < 0.01, "{}: {} and {exact}", CLASSES[class], area(class));
        }
    }

    #[test]
    fn every_figure_stays_within_its_radius_and_stands_upright() {
        let [square, star, triangle] = [3, 4, 5];
        for class in (0..CLASSES.len()).filter(|class| *class != square) {
            for turn in 0..360 {
                let (sin, cos) = f64::from(turn).to_radians().sin_cos();
                assert!(distance(class, [1.03 * cos, 1.03 * sin]) > 0.0, "{}", CLASSES[class]);
            }
        }
        for class in [star, triangle] {
            assert!(distance(class, [0.0, -0.98]) < 0.0, "a tip above");
            assert!(distance(class, [0.0, 0.98]) > 0.0, "none below");
        }
    }

    #[test]
    fn colours_go_round_the_circle() {
        assert_eq!(colour(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]);
        assert_eq!(colour(2.0, 1.0, 0.5), [0.0, 0.5, 0.0]);
        assert_eq!(colour(4.0, 1.0, 1.0), [0.0, 0.0, 1.0]);
        assert_eq!(colour(-2.0, 1.0, 1.0), [0.0, 0.0, 1.0]);
        assert_eq!(colour(1.0, 0.5, 1.0), [1.0, 1.0, 0.5]);
        assert_eq!(colour(3.3, 0.0, 0.9), [0.9; 3]);
    }
}
