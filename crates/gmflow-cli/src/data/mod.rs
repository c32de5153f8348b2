//! `gmflow data`: data sets that are downloaded, found and drawn.

mod get;
pub mod locate;

use crate::args::{DataCommand, Drawn, MakeArgs};
use crate::output;
use crate::terminal;
use anyhow::Result;
use gmflow_data::{ImageDataset, Shapes, ShapesDataset, write_folder};
use serde_json::json;

/// Runs the command.
pub fn run(command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::Get(arguments) => get::get(arguments),
        DataCommand::List(arguments) => get::list(arguments),
        DataCommand::Path(arguments) => get::path(arguments),
        DataCommand::Make(arguments) => make(arguments),
    }
}

/// Writes a folder of pictures.
fn make(arguments: &MakeArgs) -> Result<()> {
    let MakeArgs { what: Drawn::Shapes, out, num, size, seed, .. } = arguments;
    let shapes = ShapesDataset::new(Shapes { size: *size, count: *num, seed: *seed, ..Shapes::default() })?;
    output::create_parent(out)?;
    let bar = terminal::bar(*num as u64, "drawing", "pictures");
    let written = write_folder(&shapes, out, arguments.format, &mut || bar.inc(1));
    bar.finish_and_clear();
    written?;
    let classes = shapes.class_names();
    if arguments.outcome.json {
        return output::json(&json!({ "folder": out, "count": num, "size": size, "classes": classes }));
    }
    output::line(&format!("{num} pictures of {size}x{size} pixels in {}: {}", out.display(), classes.join(", ")))
}
