//! The demo's figures: one row per model, solver and number of steps.

use crate::plot::Heat;
use anyhow::{Context, Result};
use gmflow_data::density::{Density, histogram, total_variation};
use serde::Serialize;
use std::fmt::Write;

/// Bins along one side for the distance.
const BINS: usize = 32;
/// The true density of the demo.
pub const TRUTH: Density = Density::CHECKERBOARD;
/// Half the side of the square that the true density fills.
pub const RANGE: f32 = 4.0;

/// The true density's probability of every cell.
pub fn truth(bins: usize) -> Result<Heat> {
    let shares = TRUTH.bin_masses(bins, [-RANGE, RANGE]).context("the density has no closed form")?;
    Ok(Heat { bins, range: RANGE, shares })
}

/// How far points are from the true density.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Distance {
    /// Share of points outside the squares.
    pub outside: f64,
    /// Total variation distance on 32x32 bins over [-4, 4]^2.
    pub total_variation: f64,
}

impl Distance {
    /// Measures `points`.
    pub fn of(points: &[[f32; 2]]) -> Result<Self> {
        let counted = histogram(points, BINS, [-RANGE, RANGE]);
        Ok(Self {
            outside: TRUTH.outside_fraction(points).context("the density fills the plane")?,
            total_variation: total_variation(&counted, &truth(BINS)?.shares)?,
        })
    }
}

/// One measured sampler.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Mixture components of the model.
    pub components: usize,
    /// The solver's name.
    pub solver: String,
    /// Network evaluations per point.
    pub steps: usize,
    /// How far its points are from the true density.
    #[serde(flatten)]
    pub distance: Distance,
    /// Seconds for all points.
    pub seconds: f64,
}

/// How a model was trained.
#[derive(Clone, Debug, Serialize)]
pub struct Training {
    /// Mixture components of the model.
    pub components: usize,
    /// The loss, as in the configuration.
    pub loss: serde_json::Value,
    /// Optimiser steps.
    pub steps: u64,
    /// Points per step.
    pub batch_size: usize,
    /// Wall-clock time.
    pub seconds: f64,
}

/// The demo's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed of everything.
    pub seed: u64,
    /// Points drawn for each row.
    pub points: usize,
    /// The two models.
    pub training: Vec<Training>,
    /// The total variation of as many points drawn from the true density itself: chance alone.
    pub chance: f64,
    /// The measured samplers.
    pub rows: Vec<Row>,
}

impl Report {
    /// A Markdown table with a few words around it.
    pub fn markdown(&self) -> Result<String> {
        let mut text = String::from("| model | solver | steps | outside the squares | total variation |\n");
        text.push_str("|---|---|--:|--:|--:|\n");
        for Row { components, solver, steps, distance: Distance { outside, total_variation }, .. } in &self.rows {
            writeln!(text, "| K={components} | {solver} | {steps} | {outside:.3} | {total_variation:.3} |")?;
        }
        writeln!(text, "\n{}", self.note())?;
        Ok(text)
    }

    /// The table for a terminal: the same rows in aligned columns.
    pub fn text(&self) -> Result<String> {
        let mut text =
            format!("{:6} {:10} {:>5}  {:>8}  {:>15}\n", "model", "solver", "steps", "outside", "total variation");
        for Row { components, solver, steps, distance: Distance { outside, total_variation }, .. } in &self.rows {
            let model = format!("K={components}");
            writeln!(text, "{model:6} {solver:10} {steps:>5}  {outside:>8.3}  {total_variation:>15.3}")?;
        }
        writeln!(text, "\n{}", self.note())?;
        Ok(text)
    }

    /// Comma-separated values with a header.
    pub fn csv(&self) -> Result<String> {
        let mut text = String::from("components,solver,steps,outside,total_variation,seconds\n");
        for Row { components, solver, steps, distance: Distance { outside, total_variation }, seconds } in &self.rows
        {
            writeln!(text, "{components},{solver},{steps},{outside},{total_variation},{seconds}")?;
        }
        Ok(text)
    }

    fn note(&self) -> String {
        let models: Vec<String> = self
            .training
            .iter()
            .map(|t| {
                format!("K={}: {} steps of {} points in {:.0} s", t.components, t.steps, t.batch_size, t.seconds)
            })
            .collect();
        format!(
            "{} points each; total variation on {BINS}x{BINS} bins over [-4, 4]^2, where {:.3} is what as many points \
             of the true density have. Trained with seed {}: {}.",
            self.points,
            self.chance,
            self.seed,
            models.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_the_density_itself_are_inside_and_near() {
        let distance = Distance::of(&TRUTH.sample(1, 0, 40_000)).unwrap();
        assert_eq!(distance.outside, 0.0);
        assert!((0.03..0.06).contains(&distance.total_variation), "{distance:?}");
        let elsewhere = Distance::of(&[[-1.0, -3.0], [9.0, 9.0]]).unwrap();
        assert_eq!((elsewhere.outside, elsewhere.total_variation), (1.0, 1.0));
    }

    #[test]
    fn the_tables_have_one_line_per_row() {
        let distance = Distance { outside: 0.05, total_variation: 0.1 };
        let row = Row { components: 64, solver: "gm-ode".into(), steps: 4, distance, seconds: 1.0 };
        let report =
            Report { seed: 0, points: 10, training: Vec::new(), chance: 0.045, rows: vec![row.clone(), row] };
        assert_eq!(report.markdown().unwrap().matches("| K=64 | gm-ode | 4 | 0.050 | 0.100 |").count(), 2);
        assert_eq!(report.csv().unwrap().lines().count(), 3);
        assert_eq!(report.text().unwrap().matches("K=64").count(), 2);
    }
}
