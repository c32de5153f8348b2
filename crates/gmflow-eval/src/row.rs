//! One measured set of samples, as JSON and as a row of a table.

use crate::features::FeatureInfo;
use crate::points::PointsDistance;
use crate::{Likelihood, LikelihoodAt, Metrics, Table};
use gmflow::kernel::MatmulPrecision;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What samples were compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferenceInfo {
    /// The data, its file and its limit.
    pub data: String,
    /// How many samples; none for a density.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
}

/// Everything that is known of a measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The set: a folder, a file or a checkpoint.
    pub fake: String,
    /// Mixture components of the checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub components: Option<usize>,
    /// Solver, steps and guidance of samples from a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sampler: Option<Value>,
    /// What the checkpoint's network was computed in.
    #[serde(skip_serializing_if = "is_f32", default)]
    pub precision: MatmulPrecision,
    /// The seed of the first sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// How many samples were measured.
    pub samples: u64,
    /// What they were compared with.
    pub reference: ReferenceInfo,
    /// What the features were computed with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub features: Option<FeatureInfo>,
    /// Figures of images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metrics: Option<Metrics>,
    /// Figures of points.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub points: Option<PointsDistance>,
    /// The likelihood of the reference under the checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub likelihood: Option<Likelihood>,
    /// Seconds that sampling took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<f64>,
}

fn is_f32(precision: &MatmulPrecision) -> bool {
    *precision == MatmulPrecision::F32
}

impl Row {
    /// A row without figures.
    pub fn new(fake: String, samples: u64, reference: ReferenceInfo) -> Self {
        Self {
            fake,
            components: None,
            sampler: None,
            precision: MatmulPrecision::F32,
            seed: None,
            samples,
            reference,
            features: None,
            metrics: None,
            points: None,
            likelihood: None,
            seconds: None,
        }
    }

    /// Names and values of the cells; a cell may be empty.
    pub fn cells(&self) -> Vec<(&'static str, String)> {
        let sampler = |key: &str| self.sampler.as_ref().map(|sampler| plain(&sampler[key])).unwrap_or_default();
        let order = sampler("order");
        let solver = match (order.as_str(), sampler("second_order").as_str()) {
            ("", _) => sampler("solver"),
            (order, "") => format!("{} {order}", sampler("solver")),
            (order, carry) => format!("{} {order}, {carry}", sampler("solver")),
        };
        let guidance = match sampler("cfg") {
            cfg if cfg.is_empty() => sampler("guidance"),
            cfg => format!("cfg {cfg}"),
        };
        let reference = match self.reference.count {
            Some(count) => format!("{} ({count})", self.reference.data),
            None => self.reference.data.clone(),
        };
        let number =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        let mut cells = vec![
            ("samples of", self.fake.clone()),
            ("K", self.components.map_or(String::new(), |k| k.to_string())),
            ("solver", solver),
            ("steps", sampler("steps")),
            ("guidance", guidance),
            ("reweighted by", sampler("reweight_by")),
            ("computed in", if is_f32(&self.precision) { String::new() } else { plain(&json!(self.precision)) }),
            ("seed", self.seed.map_or(String::new(), |seed| seed.to_string())),
            ("samples", self.samples.to_string()),
            ("reference", reference),
            ("features", self.features.as_ref().map_or(String::new(), FeatureInfo::label)),
        ];
        cells.extend(self.metrics.iter().flat_map(Metrics::columns));
        if let Some(points) = &self.points {
            cells.push(("total variation", format!("{:.4}", points.total_variation)));
            cells.push(("by chance", format!("{:.4}", points.chance)));
            cells.push(("sliced Wasserstein", format!("{:.4}", points.sliced_wasserstein)));
            cells.push(("outside", number(points.outside, 4)));
        }
        let bits = |part: fn(&Likelihood) -> Option<f64>| number(self.likelihood.as_ref().and_then(part), 4);
        cells.push(("bits/dim", bits(|likelihood| Some(likelihood.bits_per_dim))));
        cells.push(("with spectrum", bits(|likelihood| likelihood.bits_per_dim_spectral)));
        cells
    }
}

/// A table of some rows, without columns that are empty in all of them.
///
/// ```
/// use gmflow_eval::{Metrics, ReferenceInfo, Row, row};
///
/// let metrics = Metrics { fid: Some(3.125), ..Metrics::default() };
/// let reference = ReferenceInfo { data: "photos".into(), count: Some(50_000) };
/// let one = Row { metrics: Some(metrics), ..Row::new("models/a".into(), 50_000, reference) };
/// let table = row::table(&[one]).markdown();
/// assert!(table.starts_with("| samples of | samples | reference | FID |"));
/// assert!(table.contains("| models/a | 50000 | photos (50000) | 3.1250 |"));
/// ```
pub fn table(rows: &[Row]) -> Table {
    let rows: Vec<_> = rows.iter().map(Row::cells).collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in rows.iter().flatten() {
        if !value.is_empty() && !names.contains(name) {
            names.push(name);
        }
    }
    // In the order of the cells, whichever row had one first.
    let order = |name: &&str| rows.iter().filter_map(|row| row.iter().position(|cell| cell.0 == *name)).max();
    names.sort_by_key(order);
    let lines = rows.iter().map(|row| {
        let cell =
            |name: &&str| row.iter().find(|cell| cell.0 == *name).map(|cell| cell.1.clone()).unwrap_or_default();
        names.iter().map(cell).collect()
    });
    let lines = lines.collect();
    Table { names: names.iter().map(|name| (*name).to_owned()).collect(), lines }
}

/// A table of the likelihoods by time: a line for each part of the time, columns for each set. None where no row has any.
pub fn likelihood_table(rows: &[Row]) -> Option<Table> {
    let mut sets: Vec<(&str, &[LikelihoodAt])> = Vec::new();
    for row in rows {
        let parts = row.likelihood.as_ref().map_or(&[][..], |likelihood| &likelihood.by_time);
        if !parts.is_empty() && !sets.iter().any(|(name, _)| *name == row.fake) {
            sets.push((&row.fake, parts));
        }
    }
    let mut parts: Vec<&LikelihoodAt> = sets.iter().flat_map(|(_, parts)| parts.iter()).collect();
    parts.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.to.total_cmp(&b.to)));
    parts.dedup_by_key(|at| (at.from, at.to));
    if parts.is_empty() {
        return None;
    }
    let mut names = vec!["bits/dim at t (data is 0, noise 1)".to_owned(), "images".to_owned()];
    for (name, parts) in &sets {
        names.push((*name).to_owned());
        if has_spectrum(parts) {
            names.push(format!("{name}, with spectrum"));
        }
    }
    let lines = parts.iter().map(|at| {
        let mut cells = vec![format!("{} to {}", short(at.from), short(at.to)), at.count.to_string()];
        for (_, parts) in &sets {
            let own = parts.iter().find(|own| (own.from, own.to) == (at.from, at.to));
            let bits = |bits: Option<f64>| bits.map_or(String::new(), |bits| format!("{bits:.4}"));
            cells.push(bits(own.map(|own| own.bits_per_dim)));
            if has_spectrum(parts) {
                cells.push(bits(own.and_then(|own| own.bits_per_dim_spectral)));
            }
        }
        cells
    });
    Some(Table { lines: lines.collect(), names })
}

fn has_spectrum(parts: &[LikelihoodAt]) -> bool {
    parts.iter().any(|at| at.bits_per_dim_spectral.is_some())
}

/// A time with at most four digits.
fn short(time: f64) -> String {
    let text = format!("{time:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
