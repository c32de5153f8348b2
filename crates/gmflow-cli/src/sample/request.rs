//! Which samples are asked for: seeds, classes and noise, checked against the model.

use crate::args::SampleArgs;
use crate::arrays::read_noise;
use crate::failure::usage;
use anyhow::Result;
use gmflow::checkpoint::{DataKind, ModelInfo};

const IMAGES: usize = 16;
const POINTS: usize = 10_000;
const IMAGES_AT_ONCE: usize = 16;
const POINTS_AT_ONCE: usize = 4096;

/// The samples that are asked for.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// One class per sample, of models with classes.
    pub classes: Option<Vec<usize>>,
    /// The noise to start from instead of the seeds', `[n c h w]`.
    pub noise: Option<Vec<f32>>,
    /// Samples computed at once.
    pub batch: usize,
}

impl Request {
    /// Checks the arguments against the model.
    pub fn new(arguments: &SampleArgs, info: &ModelInfo) -> Result<Self> {
        let shape = [info.data.channels, info.data.height, info.data.width];
        let noise = arguments.noise.as_deref().map(|path| read_noise(path, shape)).transpose()?;
        let (count, batch) = match info.data.kind {
            DataKind::Image | DataKind::Latents => (IMAGES, IMAGES_AT_ONCE),
            DataKind::Points => (POINTS, POINTS_AT_ONCE),
        };
        let count = match &noise {
            Some(noise) => noise.len() / shape.iter().product::<usize>(),
            None => arguments.num.unwrap_or(count),
        };
        let seeds = (0..count as u64).map(|index| arguments.seed.wrapping_add(index)).collect();
        let classes = classes(&arguments.class, info)?;
        let classes = classes.map(|classes| classes.iter().copied().cycle().take(count).collect());
        Ok(Self { seeds, classes, noise, batch: arguments.batch.unwrap_or(batch) })
    }
}

/// The classes to take in turn: those asked for, or all.
fn classes(asked: &[String], info: &ModelInfo) -> Result<Option<Vec<usize>>> {
    let count = info.network.num_classes();
    match (asked, count) {
        ([], 0) => Ok(None),
        ([first, ..], 0) => Err(usage("--class", "no class, because the model has none", first)),
        ([], _) => Ok(Some((0..info.classes.as_ref().map_or(count, Vec::len)).collect())),
        _ => asked
            .iter()
            .map(|class| find_class(class.trim(), info.classes.as_deref(), count))
            .collect::<Result<_>>()
            .map(Some),
    }
}

/// The class with this name, or else with this index: a digit names the class `7` before the eighth.
fn find_class(asked: &str, names: Option<&[String]>, count: usize) -> Result<usize> {
    let names = names.unwrap_or_default();
    let by_name = names.iter().position(|name| name == asked);
    let by_name = by_name.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(asked)));
    // Published label lists give several names to a class: "tench, Tinca tinca".
    let has_synonym = |name: &String| name.split(',').any(|synonym| synonym.trim().eq_ignore_ascii_case(asked));
    let by_name = by_name.or_else(|| names.iter().position(has_synonym));
    let by_index = || asked.parse::<usize>().ok().filter(|index| *index < count);
    by_name.or_else(by_index).ok_or_else(|| {
        let expected = if names.is_empty() {
            format!("an index below {count}")
        } else {
            format!("an index below {count} or one of {}", known(asked, names))
        };
        usage("--class", expected, asked)
    })
}

/// The names to choose from: all where they are few, or those most like what was asked for.
fn known(asked: &str, names: &[String]) -> String {
    const SHOWN: usize = 20;
    if names.len() <= SHOWN {
        return names.join(", ");
    }
    let asked = asked.to_lowercase();
    let distance = |name: &String| {
        let synonyms =
            name.split(',').map(|synonym| strsim::damerau_levenshtein(&asked, &synonym.trim().to_lowercase()));
        synonyms.min().unwrap_or(usize::MAX)
    };
    let mut nearest: Vec<&String> = names.iter().collect();
    nearest.sort_by_cached_key(|name| distance(name));
    let nearest: Vec<&str> = nearest.iter().take(5).map(|name| name.as_str()).collect();
    format!("{} names (`gmflow info --json` lists them), such as {}", names.len(), nearest.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_found_by_name_then_by_index() {
        let names: Vec<String> = ["three", "0", "Cat"].map(String::from).into();
        let find = |asked| find_class(asked, Some(&names), 3);
        assert_eq!(find("cat").unwrap(), 2);
        assert_eq!(find("0").unwrap(), 1, "the name comes first");
        assert_eq!(find("2").unwrap(), 2);
        let message = find("dog").unwrap_err().to_string();
        assert!(message.contains("three, 0, Cat") && message.contains("dog"), "{message}");
        assert!(find_class("3", None, 3).is_err());
        let names: Vec<String> = (0..1000).map(|i| format!("thing {i}, Res {i}")).collect();
        assert_eq!(find_class("res 17", Some(&names), 1000).unwrap(), 17);
        let message = find_class("thing 17x", Some(&names), 1000).unwrap_err().to_string();
        assert!(message.contains("thing 17, Res 17") && message.len() < 300, "{message}");
    }
}
