//! A plan as a configuration with comments, and in words.

use std::path::Path;
use std::time::Duration;

use gmflow::kernel::MatmulPrecision;
use gmflow_data::DatasetConfig;
use toml::Value;

use super::{BATCH, Plan, RECOGNISABLE, SIZE};
use crate::progress::{about, grouped};
use crate::{Error, Result};

/// Time between checkpoints, and between pictures.
const BETWEEN: Duration = Duration::from_secs(300);
/// Steps between them at the least, where there are so many.
const FEWEST_BETWEEN: u64 = 50;
/// Fewer pictures than this are known by heart before a network has learnt what they have in common.
const FEW: usize = 100;
/// What takes less than this share of the training is not worth a line.
const WORTH_A_LINE: f64 = 0.1;
/// Pictures in a grid: of each class equally many, and of few classes not fewer than two.
const PICTURES: usize = 36;
/// Classes that are named in a line.
const NAMED: usize = 12;

/// The configuration.
pub(super) fn toml(plan: &Plan, source: &DatasetConfig) -> Result<String> {
    let Plan { size, channels, network, steps, .. } = plan;
    let (levels, blocks, attention) = network.shape();
    let every = round((BETWEEN.as_secs_f64() / plan.step_time.as_secs_f64().max(1e-6)) as u64);
    let every = every.clamp(1, round(steps / 4).max(1)).max(FEWEST_BETWEEN.min(*steps));
    let classes = plan.survey.classes.len();
    let num = match classes {
        1..=PICTURES => (PICTURES / classes).max(2) * classes,
        _ => PICTURES,
    };
    // The average's half-life grows with training; beyond this it forgets what is older than a tenth of the run.
    let half_life = (steps * BATCH / 10).max(1);
    let dropout = if classes > 1 { 0.1 } else { 0.0 };
    let guidance = match classes > 1 {
        true => ", guidance = { kind = \"probabilistic\", scale = 0.1, orthogonal = 1.0 }",
        false => "",
    };
    Ok(format!(
        r#"# {found}
# On the machine that this was written on: {expected}.
# What to do when they do not: book/src/train-on-your-pictures.md.

[data.source]
{source}
# Pictures are cut to a square and brought to this size. A mirrored picture is as good for most photos, and not for text:
# horizontal_flip = true then doubles the data. corrupt = "skip" passes over files that cannot be read, with a warning for each; with
# "refuse" they end the training.
image = {{ size = {size}, channels = {channels}, horizontal_flip = false, corrupt = "skip" }}

# The {name} network of `gmflow init`. Channels, size and classes are taken from the data.
[network]
type = "unet"
num_gaussians = 4
block_out_channels = {levels:?}
layers_per_block = {blocks}
attention_levels = {attention:?}

[loss]
kind = "transition"
transition_ratio = 0.5

[time]
sampling = "logit-normal"

[train]
batch_size = {BATCH}
steps = {steps}
lr = {lr}
betas = [0.9, 0.99]
warmup_steps = {warmup}
schedule = {{ kind = "cosine", hold = 0.4, final_ratio = 0.02 }}
clip_grad_norm = 1.0
label_dropout = {dropout:?}
seed = 1
# The numbers that layers multiply; weights and sums are f32.
precision = "{precision}"

# The average of the weights, which samples better than the weights themselves.
[[ema]]
name = "ema"
decay = {{ kind = "ramp-up", half_life = {half_life}, ratio = 0.05 }}

[checkpoint]
every = {every}

[log]
every = {log}

# Pictures during training: runs/NAME/samples.
[sample]
every = {every}
num = {num}
sampler = {{ solver = {{ kind = "gm-ode" }}, steps = 8, reweight_by = "pixel"{guidance} }}
"#,
        found = found(plan),
        expected = expected(plan),
        source = source_lines(source)?,
        name = network.name(),
        precision = precision(plan),
        lr = network.lr(),
        warmup = (steps / 20).clamp(1, 400),
        log = (every / 10).max(1),
    ))
}

/// The setting `train.precision`.
fn precision(plan: &Plan) -> &'static str {
    match plan.precision {
        MatmulPrecision::F32 => "f32",
        MatmulPrecision::Bf16 => "bf16",
        MatmulPrecision::Int8 => "int8",
    }
}

/// The number with one digit that counts.
fn round(number: u64) -> u64 {
    let unit = 10u64.pow(number.max(1).ilog10());
    number / unit * unit
}

/// Kind and paths of a data set, each on a line.
pub(super) fn source_lines(source: &DatasetConfig) -> Result<String> {
    let text = |path: &Path| match path.to_str() {
        Some(text) => Ok(Value::String(text.to_owned()).to_string()),
        None => Err(Error::config("data", "a path that is text", path.display())),
    };
    let kind = match source {
        DatasetConfig::Idx { .. } => "idx",
        DatasetConfig::Parquet { .. } => "parquet",
        DatasetConfig::Folder { .. } => "folder",
        DatasetConfig::Tar(_) => "tar",
        _ => return Err(Error::config("data", "images", "points or latents")),
    };
    let mut lines = format!("kind = \"{kind}\"");
    for (name, path) in source.clone().paths_mut() {
        lines += &format!("\n{name} = {}", text(path)?);
    }
    Ok(lines)
}

/// What the data holds, in a line.
fn found(plan: &Plan) -> String {
    let classes = &plan.survey.classes;
    let counted = |(name, count): &(String, Option<u64>)| match count {
        Some(count) => format!("{} {}", one_line(name), grouped(*count)),
        None => one_line(name),
    };
    let mut named: Vec<String> = classes.iter().take(NAMED).map(counted).collect();
    if classes.len() > NAMED {
        named.push("...".into());
    }
    let images = counted_as(plan.survey.images as u64, "picture");
    match classes.len() {
        0 => format!("{images} without classes"),
        count => format!("{images} in {}: {}", counted_as(count as u64, "class"), named.join(", ")),
    }
}

/// A number of things, with the plural of its word.
fn counted_as(number: u64, word: &str) -> String {
    let ending = match number {
        1 => "",
        _ if word.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {word}{ending}", grouped(number))
}

/// A name may hold anything; a comment ends with its line.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What was found and chosen.
pub(super) fn words(plan: &Plan) -> String {
    let Plan { survey, size, channels, network, batch, steps, step_time, .. } = plan;
    let [[h0, w0], [h1, w1]] = survey.sizes;
    let sizes = if [h0, w0] == [h1, w1] {
        format!("{w0}x{h0}")
    } else {
        format!("{} to {} pixels on the shorter side", h0.min(w0), h1.min(w1))
    };
    let formats: Vec<String> = survey.formats.keys().cloned().collect();
    let looked_at = match survey.looked_at < survey.images {
        true => format!(" (of {} that were looked at)", survey.looked_at),
        false => String::new(),
    };
    let colours = if *channels == 1 { "grey" } else { "colours" };
    let mut text =
        format!("data      {}\n          {sizes}, {}, {colours}{looked_at}\n", found(plan), formats.join(", "));
    if let Some((count, error)) = &survey.damaged {
        text += &format!(
            "damaged   {count} of those: {error}\n          training passes over such files (corrupt = \"skip\")\n"
        );
    }
    if survey.images < FEW {
        text += &format!(
            "few       {} will be known by heart, and samples will be copies of them: some hundreds are better\n",
            counted_as(survey.images as u64, "picture")
        );
    }
    let smaller = match plan.larger {
        Some(larger) => format!(" (the time is too short for {larger}x{larger}, which --size {larger} learns)"),
        None => String::new(),
    };
    text += &format!("learnt    {size}x{size}, {}{smaller}\n", counted_as(*channels as u64, "channel"));
    text += &format!(
        "network   {} in {}: {} a step of {} on this machine\n",
        network.name(),
        precision(plan),
        short(*step_time),
        counted_as(*batch, "picture")
    );
    let more = if plan.more { " (more bring little; --steps N takes them)" } else { "" };
    text += &format!("training  {}{more}\n", counted_as(*steps, "step"));
    text += &reading(plan);
    text += &format!("expected  {}", expected(plan));
    text
}

/// The time that the files take to read, where it matters.
fn reading(plan: &Plan) -> String {
    let (reading, all) = (plan.reading(plan.steps), plan.expected()[1]);
    if reading.as_secs_f64() < WORTH_A_LINE * all.saturating_sub(reading).as_secs_f64() {
        return String::new();
    }
    match plan.is_kept() {
        true => format!("reading   the pictures takes about {} more, once: they stay in memory\n", about(reading)),
        false => format!(
            "reading   the pictures takes about {} more: they are too many to stay in memory; smaller files are faster\n",
            about(reading)
        ),
    }
}

/// When there will be pictures that look like the data, and the end.
fn expected(plan: &Plan) -> String {
    let ([first, all], recognisable) = (plan.expected(), grouped(RECOGNISABLE));
    match plan.steps < RECOGNISABLE {
        true => {
            let needed = plan.step_time.mul_f64(RECOGNISABLE as f64).saturating_add(plan.reading(RECOGNISABLE));
            let minutes = needed.as_secs().div_ceil(60).max(1);
            let smaller = match plan.size > SIZE {
                true => format!(", or fewer with --size {SIZE}"),
                false => String::new(),
            };
            format!(
                "the end in {}; pictures that look like the data need about {recognisable} steps: --minutes {minutes}{smaller}",
                about(all)
            )
        }
        false => format!(
            "pictures that look like the data in {} (step {recognisable}), the end in {}",
            about(first),
            about(all)
        ),
    }
}

/// A time below a minute with two digits.
fn short(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}
