//! Tables and charts of a sweep's rows.

use super::chart::Chart;
use crate::plot::{Heat, Panel, Sheet};
use crate::table::{Form, tables};
use anyhow::Result;
use gmflow::checkpoint::write_atomic;
use gmflow_data::Density;
use gmflow_eval::Row;
use gmflow_eval::points::PointsConfig;
use gmflow_eval::sweep::{BINS, Curve, Curves, Line, Plan};
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
    for (stem, chart) in all_charts(&curves, plan) {
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

/// The charts of all curves, for each model on its own where they are many, and those that the plan asks for.
fn all_charts(curves: &Curves, plan: &Plan) -> Vec<(String, Chart)> {
    let mut all = Vec::new();
    let mut add = |suffix: &str, curves: &Curves| {
        let named = charts(curves, &plan.title).into_iter().map(|(stem, chart)| (format!("{stem}{suffix}"), chart));
        all.extend(named);
    };
    if curves.len() <= MOST_CURVES {
        add("", curves);
    } else {
        let names: Vec<&str> = plan.models.iter().map(|model| model.name.as_str()).collect();
        for (model, file) in names.iter().zip(file_names(&names)) {
            add(&format!("-{file}"), &curves.of_model(model));
        }
    }
    for chart in &plan.charts {
        add(&format!("-{}", chart.name), &curves.labelled(&chart.curves));
    }
    all
}

fn charts(curves: &Curves, title: &str) -> Vec<(String, Chart)> {
    let Some(name) = curves.distance_name() else { return Vec::new() };
    let chart = |what: &str, axes: [&str; 2], logarithmic, curves| Chart {
        title: format!("{title}: {what}"),
        axes: axes.map(String::from),
        logarithmic,
        curves,
    };
    let steps = "network evaluations";
    let mut all = vec![
        ("distance".to_owned(), chart(name, [steps, name], [true, true], curves.distance_over_steps())),
        (
            "precision".to_owned(),
            chart("precision", [steps, "precision"], [true, false], curves.precision_over_steps()),
        ),
    ];
    all.extend(by_steps(curves.precision_and_recall()).into_iter().map(|(steps, curves)| {
        let of = steps.map_or(String::new(), |steps| format!(", {steps} steps"));
        let stem = steps.map_or("precision-recall".to_owned(), |steps| format!("precision-recall-{steps}-steps"));
        let what = format!("precision and recall over guidance{of}");
        (stem, chart(&what, ["recall", "precision"], [false; 2], curves))
    }));
    all.into_iter().filter(|(_, chart)| !chart.curves.is_empty()).collect()
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
