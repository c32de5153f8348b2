//! Values that are read from text.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use gmflow_eval::arrays::check_range;

/// A value by its name on the command line, with a few words for the help.
pub type Choice<T> = (&'static str, T, &'static str);

/// Takes the name of one of these values.
pub fn one_of<T: Copy + Send + Sync + 'static>(choices: &'static [Choice<T>]) -> impl TypedValueParser<Value = T> {
    let named = choices.iter().map(|(name, _, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(named).try_map(move |name| {
        let choice = choices.iter().find(|choice| choice.0 == name);
        choice.map(|choice| choice.1).ok_or_else(|| format!("unknown name {name}"))
    })
}

/// Two numbers with a comma between them.
pub fn interval(text: &str) -> Result<[f64; 2], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "expected two numbers such as 0.2,0.8".to_owned())
}

/// Two numbers with a comma or two dots between them, the lower one first.
pub fn range(text: &str) -> Result<[f64; 2], String> {
    let plain = text.trim().trim_start_matches('[').trim_end_matches(']');
    let numbers: Option<Vec<f64>> = match plain.split_once("..") {
        Some((low, high)) => [low, high].iter().map(|number| number.trim().parse().ok()).collect(),
        None => plain.split(',').map(|number| number.trim().parse().ok()).collect(),
    };
    let range = numbers.and_then(|numbers| <[f64; 2]>::try_from(numbers).ok());
    range
        .filter(|range| check_range(*range).is_ok())
        .ok_or_else(|| "expected two numbers, the lower one first, such as 0,255 or -1,1".to_owned())
}

/// A number of things, at least one.
pub fn count(text: &str) -> Result<usize, String> {
    at_most(text, gmflow::limits::MOST_SAMPLES)
}

/// A number of steps or rounds, at least one.
pub fn steps(text: &str) -> Result<usize, String> {
    at_most(text, gmflow::limits::MOST_STEPS)
}

/// A time in minutes.
pub fn minutes(text: &str) -> Result<u64, String> {
    Ok(at_most(text, 1_000_000).map_err(|expected| format!("{expected}, in minutes"))? as u64)
}

/// A number of training steps, at least one.
pub fn train_steps(text: &str) -> Result<u64, String> {
    let steps = text.parse().ok().filter(|steps| *steps >= 1);
    steps.ok_or_else(|| "expected a whole number of at least 1".to_owned())
}

fn at_most(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("expected a whole number from 1 to {most}"))
}
