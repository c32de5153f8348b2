//! `gmflow data get`, `list` and `path`.

use super::locate::{EXTENSION, absent, find, hub_id};
use crate::args::{GetArgs, ListArgs, PathArgs};
use crate::checkpoint_path::Bars;
use crate::failure::usage;
use crate::output;
use anyhow::{Context, Result};
use gmflow::checkpoint::hub::{HubSettings, fetch_dataset};
use gmflow_data::{KnownSet, NamedData, Split};
use gmflow_files::nearest;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A part of a set that has been opened.
#[derive(Serialize)]
struct Part {
    split: Split,
    pictures: usize,
    shape: [usize; 3],
}

/// Downloads sets, and opens them to see that they can be read.
pub fn get(arguments: &GetArgs) -> Result<()> {
    let sets = arguments.names.iter().map(|name| known(name)).collect::<Result<Vec<_>>>()?;
    let mut outcomes = Vec::new();
    for set in sets {
        let folder = download(set)?;
        let parts = [Split::Train, Split::Test].into_iter().map(|split| open(set, split, &folder));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        if !arguments.outcome.json {
            let counts: Vec<String> = parts.iter().map(|part| format!("{} {}", part.pictures, part.split)).collect();
            output::line(&format!("{}: {} pictures in {}", set.name(), counts.join(" and "), folder.display()))?;
        }
        outcomes.push(serde_json::json!({ "name": set.name(), "folder": folder, "parts": parts }));
    }
    if arguments.outcome.json { output::json(&outcomes) } else { Ok(()) }
}

fn download(set: KnownSet) -> Result<PathBuf> {
    let wanted = (set.repository_folder(), EXTENSION);
    fetch_dataset(&hub_id(set)?, wanted, &HubSettings::from_env()?, &mut Bars::default()).with_context(|| {
        let (name, repository) = (set.name(), set.repository());
        format!(
            "{name} is not here: without a network, copy {} of huggingface.co/datasets/{repository} from another machine; \
             gmflow train and eval take their folder with --data DIR",
            format_args!("{}/*.{EXTENSION}", set.repository_folder())
        )
    })
}

fn open(set: KnownSet, split: Split, folder: &Path) -> Result<Part> {
    let named = NamedData { name: set, split, folder: Some(folder.to_owned()), image: Default::default() };
    let images = named.open(Path::new(""))?;
    Ok(Part { split, pictures: images.len(), shape: images.shape() })
}

/// The set with this name.
fn known(name: &str) -> Result<KnownSet> {
    KnownSet::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = KnownSet::ALL.into_iter().map(KnownSet::name).collect();
        let hint = nearest(name, &names).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
        usage("NAME", names.join(", "), format!("{name}{hint}"))
    })
}

/// One line of the list.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    about: &'static str,
    pictures: [u32; 2],
    megabytes: u32,
    train: Option<PathBuf>,
    test: Option<PathBuf>,
}

/// Shows what is known and where it is.
pub fn list(arguments: &ListArgs) -> Result<()> {
    let line = |set: KnownSet| -> Result<Line> {
        Ok(Line {
            name: set.name(),
            about: set.about(),
            pictures: [Split::Train, Split::Test].map(|split| set.pictures(split)),
            megabytes: set.megabytes(),
            train: find(set, Split::Train)?,
            test: find(set, Split::Test)?,
        })
    };
    let lines = KnownSet::ALL.into_iter().map(line).collect::<Result<Vec<_>>>()?;
    if arguments.json {
        return output::json(&lines);
    }
    let mut text = String::new();
    for Line { name, about, pictures: [train, test], megabytes, .. } in &lines {
        text += &format!("{name:14} {about}; {train} + {test} pictures, {megabytes} MB\n");
    }
    text += "\n";
    for Line { name, train, test, .. } in &lines {
        let place = match (train, test) {
            (Some(train), Some(test)) if train == test => train.display().to_string(),
            (None, None) => format!("not here; gmflow data get {name}"),
            (train, test) => {
                let part = |split, folder: &Option<PathBuf>| match folder {
                    Some(folder) => format!("{split}: {}", folder.display()),
                    None => format!("{split}: not here"),
                };
                format!("{}; {}", part(Split::Train, train), part(Split::Test, test))
            }
        };
        text += &format!("{name:14} {place}\n");
    }
    text += "\nshapes         coloured shapes, drawn on the spot: configs/shapes.toml, gmflow data make shapes";
    output::line(&text)
}

/// Prints the folder of a set.
pub fn path(arguments: &PathArgs) -> Result<()> {
    let (set, split) = (known(&arguments.name)?, if arguments.test { Split::Test } else { Split::Train });
    let folder = find(set, split)?.ok_or_else(|| absent(set, split))?;
    output::line(&folder.display().to_string())
}
