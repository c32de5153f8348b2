//! The rows of a sweep as curves: distance and precision over steps, precision and recall over guidance.

use super::results::Line;
use crate::{Row, Table};

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name.
    pub label: String,
    /// (x, y) from left to right.
    pub points: Vec<(f64, f64)>,
    /// The index of the best point.
    pub best: Option<usize>,
}

/// One measured point of a curve.
#[derive(Clone, Copy)]
struct Point<'a> {
    steps: f64,
    row: &'a Row,
}

/// Rows of one model and solver.
#[derive(Clone)]
struct Series<'a> {
    model: &'a str,
    label: String,
    points: Vec<Point<'a>>,
}

/// The rows of finished cells, for each model and solver.
pub struct Curves<'a>(Vec<Series<'a>>);

/// The distance that a row is judged by: Fréchet of images, total variation of points.
fn distance(row: &Row) -> Option<f64> {
    let images = row.metrics.as_ref().and_then(|metrics| metrics.frechet());
    images.or(row.points.map(|points| points.total_variation))
}

fn precision(row: &Row) -> Option<f64> {
    row.metrics.as_ref()?.manifolds.map(|manifolds| manifolds.precision)
}

fn recall(row: &Row) -> Option<f64> {
    row.metrics.as_ref()?.manifolds.map(|manifolds| manifolds.recall)
}

/// Kind and strength of a row's guidance.
fn guidance(row: &Row) -> (bool, f64) {
    let number = |key: &str| row.sampler.as_ref().and_then(|sampler| sampler[key].as_f64());
    match number("cfg") {
        Some(scale) => (true, scale),
        None => (false, number("guidance").unwrap_or(0.0)),
    }
}

impl<'a> Curves<'a> {
    /// The rows of these lines; lines without a row are left out.
    pub fn of(lines: &[&'a Line]) -> Self {
        let mut series: Vec<Series> = Vec::new();
        for line in lines {
            let Some(row) = &line.row else { continue };
            let steps = row.sampler.as_ref().and_then(|sampler| sampler["steps"].as_f64());
            let Some(steps) = steps else { continue };
            let extrapolates = if guidance(row).0 { ", CFG" } else { "" };
            let label = format!("{}, {}{extrapolates}", line.model, line.label);
            let point = Point { steps, row };
            match series.iter_mut().find(|series| series.label == label) {
                Some(series) => series.points.push(point),
                None => series.push(Series { model: &line.model, label, points: vec![point] }),
            }
        }
        Self(series)
    }

    /// How many curves over steps there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one model, by its name.
    pub fn of_model(&self, model: &str) -> Self {
        Self(self.0.iter().filter(|series| series.model == model).cloned().collect())
    }

    /// Those with these labels, in this order.
    pub fn labelled(&self, labels: &[String]) -> Self {
        let find = |label: &String| self.0.iter().find(|series| series.label == *label).cloned();
        Self(labels.iter().filter_map(find).collect())
    }

    /// What the distance is called; none where there is no row.
    pub fn distance_name(&self) -> Option<&'static str> {
        let first = self.0.iter().flat_map(|series| &series.points).next()?;
        Some(match &first.row.metrics {
            Some(metrics) if metrics.fid.is_some() => "FID",
            Some(_) => "Fréchet distance",
            None => "total variation",
        })
    }

    /// For each curve the lowest distance among all guidances over steps.
    pub fn distance_over_steps(&self) -> Vec<Curve> {
        self.over_steps(distance, true)
    }

    /// For each curve the highest precision among all guidances over steps.
    pub fn precision_over_steps(&self) -> Vec<Curve> {
        self.over_steps(precision, false)
    }

    /// For each series the points over steps of the row with the best value among all guidances.
    fn over_steps(&self, value: fn(&Row) -> Option<f64>, lower_is_better: bool) -> Vec<Curve> {
        let better = |a: f64, b: f64| if lower_is_better { a < b } else { a > b };
        let curve = |series: &Series| {
            let mut points: Vec<(f64, f64)> = Vec::new();
            for point in &series.points {
                let Some(value) = value(point.row) else { continue };
                match points.iter_mut().find(|(steps, _)| *steps == point.steps) {
                    Some((_, best)) if better(value, *best) => *best = value,
                    Some(_) => {}
                    None => points.push((point.steps, value)),
                }
            }
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let best = (0..points.len()).reduce(|a, b| if better(points[b].1, points[a].1) { b } else { a });
            Curve { label: series.label.clone(), points, best }
        };
        self.0.iter().map(curve).filter(|curve| !curve.points.is_empty()).collect()
    }

    /// For each series and number of steps with several guidances, the steps and recall and precision over guidance; the best distance has
    /// the ring.
    pub fn precision_and_recall(&self) -> Vec<(f64, Curve)> {
        let mut curves = Vec::new();
        for series in &self.0 {
            let mut steps: Vec<f64> = series.points.iter().map(|point| point.steps).collect();
            steps.sort_by(f64::total_cmp);
            steps.dedup();
            for steps in steps {
                let mut points: Vec<&Point> = series.points.iter().filter(|point| point.steps == steps).collect();
                points.sort_by(|a, b| guidance(a.row).1.total_cmp(&guidance(b.row).1));
                let places: Vec<(f64, f64)> =
                    points.iter().filter_map(|point| Some((recall(point.row)?, precision(point.row)?))).collect();
                if places.len() < 2 || places.len() != points.len() {
                    continue;
                }
                let at = |i: &usize| distance(points[*i].row).unwrap_or(f64::INFINITY);
                let best = (0..points.len()).min_by(|a, b| at(a).total_cmp(&at(b)));
                let label = format!("{}, {steps} steps", series.label);
                curves.push((steps, Curve { label, points: places, best }));
            }
        }
        curves
    }

    /// For each series and number of steps the guidance with the best distance and the one with the best precision; none where there is
    /// one guidance only.
    pub fn best_table(&self) -> Option<Table> {
        let mut guidances: Vec<(bool, f64)> =
            self.0.iter().flat_map(|series| series.points.iter().map(|point| guidance(point.row))).collect();
        guidances.dedup();
        if guidances.len() < 2 {
            return None;
        }
        let mut lines = Vec::new();
        for series in &self.0 {
            let mut steps: Vec<f64> = series.points.iter().map(|point| point.steps).collect();
            steps.sort_by(f64::total_cmp);
            steps.dedup();
            for steps in steps {
                let points: Vec<&Point> = series.points.iter().filter(|point| point.steps == steps).collect();
                let nearest = points
                    .iter()
                    .filter_map(|point| Some((distance(point.row)?, point)))
                    .min_by(|a, b| a.0.total_cmp(&b.0));
                let Some((nearest, at)) = nearest else { continue };
                let mut line = vec![series.label.clone(), steps.to_string(), format!("{nearest:.4}")];
                line.push(guidance(at.row).1.to_string());
                let sharpest = points
                    .iter()
                    .filter_map(|point| Some((precision(point.row)?, point)))
                    .max_by(|a, b| a.0.total_cmp(&b.0));
                line.extend(match sharpest {
                    Some((precision, at)) => [format!("{precision:.4}"), guidance(at.row).1.to_string()],
                    None => [String::new(), String::new()],
                });
                lines.push(line);
            }
        }
        let names = ["curve", "steps", "best distance", "at guidance", "best precision", "at guidance"];
        (!lines.is_empty()).then(|| Table { names: names.map(str::to_owned).to_vec(), lines })
    }
}
