//! Tables and charts of a sweep's rows.

use super::chart::{Chart, Curve};
use crate::plot::{Heat, Panel, Sheet};
use crate::table::{Form, tables};
use anyhow::Result;
use gmflow::checkpoint::write_atomic;
use gmflow_data::Density;
use gmflow_eval::points::PointsConfig;
use gmflow_eval::sweep::{BINS, Line, Plan};
use gmflow_eval::{Row, Table};
use std::path::Path;

/// Curves that one chart can be read with.
const MOST_CURVES: usize = 12;
/// The brightest colour stands for this multiple of the uniform density.
const BRIGHTEST: f64 = 3.5;

/// Writes table.md, best.md and the charts into `folder`; returns the tables in a form.
pub fn write(
    plan: &Plan,
    lines: &[&Line],
    density: Option<&Density>,
    (folder, form): (&Path, Form),
) -> Result<String> {
    let title = &plan.title;
    let rows: Vec<Row> = lines.iter().filter_map(|line| named(line)).collect();
    let table = tables(&rows, Form::Markdown);
    write_atomic(&folder.join("table.md"), format!("# {title}\n\n{table}").as_bytes())?;
    let curves = Curves::of(lines);
    let best_table = curves.best_table();
    let best = best_table.as_ref().map_or(String::new(), |table| Form::Markdown.write(table));
    write_atomic(
        &folder.join("best.md"),
        format!("# {title}: the best guidance of every cell\n\n{best}").as_bytes(),
    )?;
    for (stem, chart) in curves.all_charts(plan) {
        chart.write(folder, &stem)?;
    }
    if let Some(density) = density {
        for (stem, sheet) in sheets(title, lines, density)? {
            sheet.draw()?.save_png(&folder.join(format!("{stem}.png")), &[])?;
        }
    }
    let best = best_table.map_or(String::new(), |table| format!("\n{}", form.write(&table)));
    Ok(tables(&rows, form) + &best)
}

fn named(line: &Line) -> Option<Row> {
    let row = line.row.clone()?;
    Some(Row { fake: line.model.clone(), sampler: row.sampler.map(|sampler| labelled(sampler, &line.label)), ..row })
}

/// The sampler under the name that the plan gives it.
fn labelled(mut sampler: serde_json::Value, label: &str) -> serde_json::Value {
    if let Some(entries) = sampler.as_object_mut() {
        entries.insert("solver".into(), label.into());
        entries.remove("order");
        entries.remove("second_order");
    }
    sampler
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

struct Curves<'a>(Vec<Series<'a>>);

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
    fn of(lines: &[&'a Line]) -> Self {
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
    fn precision_and_recall(&self) -> Vec<(f64, Curve)> {
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

    /// The charts of all curves, for each model on its own where they are many, and those that the plan asks for.
    fn all_charts(&self, plan: &Plan) -> Vec<(String, Chart)> {
        let mut charts = Vec::new();
        let mut add = |suffix: &str, series: Vec<&Series<'a>>, title: &str| {
            let some = Curves(series.into_iter().cloned().collect());
            charts.extend(some.charts(title).into_iter().map(|(stem, chart)| (format!("{stem}{suffix}"), chart)));
        };
        if self.0.len() <= MOST_CURVES {
            add("", self.0.iter().collect(), &plan.title);
        } else {
            let names: Vec<&str> = plan.models.iter().map(|model| model.name.as_str()).collect();
            for (model, file) in names.iter().zip(file_names(&names)) {
                let of_model = self.0.iter().filter(|series| series.model == *model).collect();
                add(&format!("-{file}"), of_model, &plan.title);
            }
        }
        for chart in &plan.charts {
            let chosen = chart.curves.iter().filter_map(|label| self.0.iter().find(|series| series.label == *label));
            add(&format!("-{}", chart.name), chosen.collect(), &plan.title);
        }
        charts
    }

    fn charts(&self, title: &str) -> Vec<(String, Chart)> {
        let first = self.0.iter().flat_map(|series| &series.points).next();
        let Some(Point { row, .. }) = first else { return Vec::new() };
        let name = match &row.metrics {
            Some(metrics) if metrics.fid.is_some() => "FID",
            Some(_) => "Fréchet distance",
            None => "total variation",
        };
        let chart = |what: &str, axes: [&str; 2], logarithmic, curves| Chart {
            title: format!("{title}: {what}"),
            axes: axes.map(String::from),
            logarithmic,
            curves,
        };
        let steps = "network evaluations";
        let mut all = vec![
            ("distance".to_owned(), chart(name, [steps, name], [true, true], self.over_steps(distance, true))),
            (
                "precision".to_owned(),
                chart("precision", [steps, "precision"], [true, false], self.over_steps(precision, false)),
            ),
        ];
        all.extend(by_steps(self.precision_and_recall()).into_iter().map(|(steps, curves)| {
            let of = steps.map_or(String::new(), |steps| format!(", {steps} steps"));
            let stem = steps.map_or("precision-recall".to_owned(), |steps| format!("precision-recall-{steps}-steps"));
            let what = format!("precision and recall over guidance{of}");
            (stem, chart(&what, ["recall", "precision"], [false; 2], curves))
        }));
        all.into_iter().filter(|(_, chart)| !chart.curves.is_empty()).collect()
    }

    /// For each series and number of steps the guidance with the best distance and the one with the best precision; none where there is
    /// one guidance only.
    fn best_table(&self) -> Option<Table> {
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

/// Curves of different numbers of steps together, or, where they are too many for one chart, those of each number for themselves.
fn by_steps(curves: Vec<(f64, Curve)>) -> Vec<(Option<f64>, Vec<Curve>)> {
    if curves.len() <= MOST_CURVES {
        return vec![(None, curves.into_iter().map(|(_, curve)| curve).collect())];
    }
    let mut all: Vec<f64> = curves.iter().map(|(steps, _)| *steps).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    let of = |steps: f64| curves.iter().filter(|curve| curve.0 == steps).map(|(_, curve)| curve.clone()).collect();
    all.into_iter().map(|steps| (Some(steps), of(steps))).collect()
}

/// Letters and digits of each name; a number is added where those of several names are the same.
fn file_names(names: &[&str]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for name in names {
        let plain = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let plain = if plain.is_empty() { "model".to_owned() } else { plain };
        let numbered = (2..).map(|number| format!("{plain}-{number}"));
        let free = std::iter::once(plain.clone()).chain(numbered).find(|file| !files.contains(file));
        files.push(free.unwrap_or(plain));
    }
    files
}

/// A sheet of histograms for every model: a row for each solver, a column for each number of steps.
fn sheets(title: &str, lines: &[&Line], density: &Density) -> Result<Vec<(String, Sheet)>> {
    let range = PointsConfig::default().range;
    let truth = density.bin_masses(BINS, [-range, range]).unwrap_or_else(|| vec![0.0; BINS * BINS]);
    let mut models: Vec<&str> = Vec::new();
    for line in lines {
        if !models.contains(&line.model.as_str()) {
            models.push(&line.model);
        }
    }
    let mut sheets = Vec::new();
    for (model, file) in models.iter().zip(file_names(&models)) {
        let of_model: Vec<&&Line> = lines.iter().filter(|line| line.model == *model).collect();
        let steps_of = |line: &Line| line.row.as_ref().and_then(|row| row.sampler.as_ref()?["steps"].as_u64());
        let mut steps: Vec<u64> = of_model.iter().filter_map(|line| steps_of(line)).collect();
        steps.sort_unstable();
        steps.dedup();
        let mut labels: Vec<&str> = Vec::new();
        for line in &of_model {
            if !labels.contains(&line.label.as_str()) {
                labels.push(&line.label);
            }
        }
        let panel = |label: &str, steps: u64| -> Option<Panel> {
            let line = of_model.iter().find(|line| line.label == label && steps_of(line) == Some(steps))?;
            let row = line.row.as_ref()?;
            let counts = line.histogram.as_ref().filter(|counts| counts.len() == BINS * BINS)?;
            let shares = counts.iter().map(|&count| count as f64 / row.samples.max(1) as f64).collect();
            let points = row.points?;
            let outside = points.outside.map_or(String::new(), |outside| format!("  out {:.1} %", 100.0 * outside));
            let caption = format!("TV {:.3}{outside}", points.total_variation);
            Some(Panel { heat: Heat { bins: BINS, range, shares }, caption })
        };
        // A gap would move the panels after it to the wrong column.
        let rows: Vec<(Vec<String>, Vec<Panel>)> = labels
            .iter()
            .filter_map(|label| {
                let panels: Option<Vec<Panel>> = steps.iter().map(|&steps| panel(label, steps)).collect();
                Some((label.split(", ").map(str::to_owned).collect(), panels?))
            })
            .collect();
        if rows.is_empty() {
            continue;
        }
        let chance = of_model.iter().find_map(|line| line.row.as_ref()?.points).map_or(0.0, |points| points.chance);
        let columns =
            steps.iter().map(|steps| format!("{steps} step{}", if *steps == 1 { "" } else { "s" })).collect();
        let heat = Heat { bins: BINS, range, shares: truth.clone() };
        let reference = ("true density".into(), Panel { heat, caption: format!("chance alone: TV {chance:.3}") });
        let sheet = Sheet { title: format!("{title}: {model}"), columns, rows, reference, brightest: BRIGHTEST };
        sheets.push((format!("histograms-{file}"), sheet));
    }
    Ok(sheets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_with_names_alike_have_files_of_their_own() {
        assert_eq!(
            file_names(&["K = 8", "K8", "模型", "k-8", "+", "k82"]),
            ["k8", "k8-2", "model", "k8-3", "model-2", "k82"]
        );
    }

    #[test]
    fn curves_of_all_steps_share_a_chart_unless_they_are_too_many() {
        let curve = |label: usize| Curve { label: label.to_string(), points: Vec::new(), best: None };
        let curves = |n: usize| -> Vec<(f64, Curve)> { (0..n).map(|i| ([8.0, 2.0, 4.0][i % 3], curve(i))).collect() };
        let together = by_steps(curves(MOST_CURVES));
        assert_eq!((together.len(), together[0].0, together[0].1.len()), (1, None, MOST_CURVES));
        let apart = by_steps(curves(MOST_CURVES + 1));
        assert_eq!(apart.iter().map(|(steps, _)| *steps).collect::<Vec<_>>(), [Some(2.0), Some(4.0), Some(8.0)]);
        assert_eq!(apart.iter().map(|(_, curves)| curves.len()).sum::<usize>(), MOST_CURVES + 1);
        assert_eq!(apart[0].1[1].label, "4");
    }
}
