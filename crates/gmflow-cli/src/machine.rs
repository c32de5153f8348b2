//! `gmflow info --machine`: what this computer can do, and which products the networks take on it.

use crate::output;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::kernel::{Bf16Products, MARGIN, MatmulPrecision, Rates, bf16_products, fastest_floats, rates};
use gmflow::machine::{Facts, Products, Roof, Roofs, facts, products};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;

/// Everything that is told.
#[derive(Serialize)]
struct Report {
    /// The version of the program, and what it was compiled for.
    gmflow: &'static str,
    system: String,
    #[serde(flatten)]
    facts: Facts,
    /// The most that the units and the memory can do, in GFLOP/s and GB/s.
    roofs: Roofs,
    /// A tile of the products on one thread, in GFLOP/s: what the choices are made by.
    rates: Rates,
    products: [Products; 3],
    /// What `--precision auto` and `train.precision = "auto"` are here.
    auto: MatmulPrecision,
}

/// Runs the command.
pub fn run(as_json: bool) -> Result<()> {
    let report = Report {
        gmflow: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        facts: facts(),
        rates: rates(),
        products: products(),
        auto: fastest_floats(&Device::flex()),
        roofs: Roofs::measure(),
    };
    if as_json { output::json(&report) } else { output::line(report.text()?.trim_end()) }
}

impl Report {
    fn text(&self) -> Result<String> {
        let mut text = String::new();
        let Self { facts, roofs, rates, .. } = self;
        writeln!(text, "gmflow        {} on {}", self.gmflow, self.system)?;
        writeln!(text, "processor     {}", facts.processor)?;
        writeln!(text, "cores         {}, {}", facts.cores, threads(facts.threads))?;
        let caches: Vec<String> =
            facts.caches.iter().map(|cache| format!("L{} {}", cache.level, bytes(cache.bytes))).collect();
        writeln!(text, "caches        {}", or_unknown(caches.join(", ")))?;
        writeln!(text, "memory        {}", or_unknown(facts.memory.map(bytes).unwrap_or_default()))?;
        writeln!(text, "instructions  {}", or_none(&facts.instructions))?;
        writeln!(text, "not here      {}", or_none(&facts.missing))?;

        let one = roofs.threads == 1;
        let all = if one { String::new() } else { format!("{:>15}", threads(roofs.threads)) };
        writeln!(text, "\nthe most there is, measured       {:>15}{all}", "1 thread")?;
        let mut line = |what: &str, roof: Option<Roof>, unit: &str| {
            let cell = |value: f64| format!("{:>15}", format!("{value:.0} {unit}"));
            match roof {
                Some(roof) if one => writeln!(text, "  {what:32}{}", cell(roof.one)),
                Some(roof) => writeln!(text, "  {what:32}{}{}", cell(roof.one), cell(roof.all)),
                None => writeln!(text, "  {what:32}{:>15}", "none"),
            }
        };
        line("multiply-add in f32", roofs.f32, "GFLOP/s")?;
        line("dot product in bf16", roofs.bf16, "GFLOP/s")?;
        line("dot product of 8-bit integers", roofs.int8, "GFLOP/s")?;
        line("reading memory", Some(roofs.memory), "GB/s")?;

        writeln!(text, "\na tile of the products            {:>15}", "1 thread")?;
        let mut line = |what: &str, rate: Option<f64>| {
            let rate = rate.map_or("none".to_owned(), |rate| format!("{rate:.0} GFLOP/s"));
            writeln!(text, "  {what:32}{rate:>15}")
        };
        line("f32", Some(rates.f32))?;
        line("bf16 by the dot product", rates.bf16)?;
        line("bf16 widened to f32", rates.bf16_widened)?;
        line("int8", rates.int8)?;

        writeln!(text, "\nprecision")?;
        for Products { precision, kernel, .. } in &self.products {
            writeln!(text, "  {:10}  {kernel}", name(*precision))?;
        }
        writeln!(text, "  auto        {}", self.auto_in_words())?;
        if let Ok(forced) = std::env::var(FORCED) {
            writeln!(text, "  {FORCED}={forced} is set")?;
        }
        Ok(text)
    }

    /// What auto is, and why.
    fn auto_in_words(&self) -> String {
        let Some(bf16) = self.rates.of_bf16(bf16_products()) else { return "f32".into() };
        let ratio = bf16 / self.rates.f32;
        let compared = format!("bf16 has {ratio:.2} times the rate of f32, and {MARGIN} is asked for");
        match self.auto {
            MatmulPrecision::Bf16 => format!("bf16, and f32 for samples of U-Nets: {compared}"),
            _ if MatmulPrecision::Bf16.is_available() => format!("f32, and bf16 for training U-Nets: {compared}"),
            _ => format!("f32: {compared}"),
        }
    }
}

/// The variable that decides how numbers in bf16 are multiplied: `dot-product` or `widened`.
pub const FORCED: &str = "GMFLOW_BF16";

/// The products in bf16 that a value of [`FORCED`] asks for.
pub fn forced(value: &str) -> Option<Bf16Products> {
    serde_json::from_value(json!(value)).ok()
}

/// A precision as it is written.
fn name(precision: MatmulPrecision) -> String {
    json!(precision).as_str().unwrap_or_default().to_owned()
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".into() } else { format!("{count} threads") }
}

fn bytes(count: u64) -> String {
    match count {
        0..0x10_0000 => format!("{} KiB", count >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", count >> 20),
        _ => format!("{:.1} GiB", count as f64 / f64::from(1 << 30)),
    }
}

fn or_unknown(text: String) -> String {
    if text.is_empty() { "unknown".into() } else { text }
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(" ") }
}
