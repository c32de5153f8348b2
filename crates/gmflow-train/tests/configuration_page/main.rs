//! book/src/configuration.md is made of the doc comments of the structs that a configuration is read into. This test fails where it is stale;
//! `GMFLOW_WRITE_DOCS=1 cargo test --release --workspace --test configuration_page` writes it.

mod source;

use source::{Field, Item, Kind, Sources, in_kebab};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The files with the structs and enums of a configuration, below `crates`.
const FILES: &[&str] = &[
    "gmflow-train/src/config/mod.rs",
    "gmflow-train/src/config/defaults.rs",
    "gmflow-train/src/config/schedule.rs",
    "gmflow-train/src/config/ema.rs",
    "gmflow-train/src/config/distill.rs",
    "gmflow-data/src/config.rs",
    "gmflow-data/src/settings.rs",
    "gmflow-data/src/density/mod.rs",
    "gmflow-data/src/shapes/mod.rs",
    "gmflow-data/src/named.rs",
    "gmflow-data/src/source/tar/settings.rs",
    "gmflow-data/src/storage/mod.rs",
    "gmflow/src/network/mod.rs",
    "gmflow/src/network/gmdit_config.rs",
    "gmflow/src/network/unet_config.rs",
    "gmflow/src/network/mlp2d.rs",
    "gmflow/src/loss/mod.rs",
    "gmflow/src/time.rs",
    "gmflow/src/pipeline.rs",
    "gmflow/src/guidance/config.rs",
    "gmflow/src/guidance/probabilistic.rs",
    "gmflow/src/kernel/matmul/precision.rs",
];

/// The tables in the order of the page: the heading, and the struct or enum.
const TABLES: &[(&str, &str)] = &[
    ("[data]", "DataConfig"),
    ("[data.source]", "DatasetConfig"),
    ("[data.source.image]", "ImageSettings"),
    ("[data.source.storage]", "Storage"),
    ("[data.source] of kind density", "Density"),
    ("[data.source] of kind shapes", "Shapes"),
    ("[data.source] of kind named", "NamedData"),
    ("[data.source] of kind tar", "TarData"),
    ("[network] of type gm-dit", "GmDitConfig"),
    ("[network] of type unet", "UnetConfig"),
    ("[network] of type mlp2d", "Mlp2dConfig"),
    ("[loss]", "LossConfig"),
    ("[time]", "TimeSampling"),
    ("[spectrum]", "SpectrumConfig"),
    ("[distill]", "DistillConfig"),
    ("[train]", "TrainConfig"),
    ("train.schedule", "Schedule"),
    ("[[ema]]", "EmaConfig"),
    ("ema.decay", "EmaDecay"),
    ("[checkpoint]", "CheckpointConfig"),
    ("[log]", "LogConfig"),
    ("[sample]", "SampleConfig"),
    ("sample.sampler", "SamplerConfig"),
    ("sample.sampler.solver", "SolverConfig"),
    ("sample.sampler.guidance", "Guidance"),
    ("sample.sampler.second_order", "SecondOrder"),
];

const HEAD: &str = "# Configuration

<!-- Made from the doc comments of the source: GMFLOW_WRITE_DOCS=1 cargo test --release --workspace --test configuration_page -->

A training is described by a TOML file, which `gmflow init` writes and `gmflow train` reads. `--set train.lr=1e-4`
replaces a setting on the command line; a number in the name is an index, as in `--set ema.0.decay.decay=0.99`. A
setting that is unknown, missing or outside its domain is an error, and all of them are reported together.

A relative path is relative to the folder of the file. One that `--set` gives is relative to the working directory. All
kinds of data, and where the files of a named set are looked for: [data.md](data.md).

The shortest configuration names the data and the number of steps:

```toml
[data.source]
kind = \"folder\"
path = \"photos\"
image = { size = 32 }

[train]
steps = 10000
```

Channels, size and classes of the network are those of the data; a value that is given and differs is an error.
";

/// What stands in the column of defaults where the data tells.
const FROM_DATA: &[(&str, &[&str])] = &[
    ("GmDitConfig", &["in_channels", "sample_size", "num_embeds_ada_norm", "patch_size"]),
    ("UnetConfig", &["in_channels", "sample_size", "num_classes"]),
];

/// The constant in `defaults.rs` with the defaults of training.
const TRAINING: &[(&str, &str)] = &[("GmDitConfig", "GM_DIT"), ("UnetConfig", "UNET"), ("Mlp2dConfig", "MLP2D")];

/// The files, and those of all solvers.
fn sources(crates: &Path) -> Sources {
    let solvers = std::fs::read_dir(crates.join("gmflow/src/solver")).expect("the folder of the solvers");
    let solvers = solvers.map(|entry| entry.expect("an entry").path());
    Sources::read(FILES.iter().map(|file| crates.join(file)).chain(solvers))
}

#[test]
fn the_page_says_what_the_source_says() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&crates);
    let page = page(&sources);
    let path: PathBuf = crates.join("../book/src/configuration.md");
    if std::env::var_os("GMFLOW_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(new, old)| new != old);
    assert!(
        page == written,
        "book/src/configuration.md is stale; GMFLOW_WRITE_DOCS=1 writes it; first difference: {differs:?}"
    );
}

#[test]
fn every_table_of_a_configuration_is_on_the_page() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&crates);
    let root = sources.item("Config");
    let Kind::Struct(fields) = &root.kind else { panic!("Config is a struct") };
    for field in fields.iter().filter(|field| !field.skipped) {
        let named = TABLES.iter().any(|(heading, _)| heading.trim_matches(['[', ']']).starts_with(&field.name));
        assert!(
            named || TABLES.iter().any(|(heading, _)| heading.contains(&format!("[{}]", field.name))),
            "{}",
            field.name
        );
    }
}

fn page(sources: &Sources) -> String {
    let mut page = HEAD.to_owned();
    for (heading, name) in TABLES {
        let item = sources.item(name);
        write!(
            page,
            "\n## `{}`\n{}\n",
            heading
                .replace(" of ", "` of ")
                .replace("` of kind ", "` of kind `")
                .replace("` of type ", "` of type `"),
            wrapped(&one_line(&item.doc), "")
        )
        .unwrap();
        match &item.kind {
            Kind::Struct(fields) => page += &table(sources, name, item, fields),
            Kind::Enum(variants) => {
                writeln!(page, "\n`{}` is one of:", item.tag.as_deref().unwrap_or("the value")).unwrap();
                for variant in variants {
                    let of = variant.of.as_deref().map(|of| (of, sources.item(of)));
                    let (doc, fields) = match of.map(|(_, item)| (&item.doc, &item.kind)) {
                        Some((doc, Kind::Struct(fields))) => (doc, fields),
                        _ => (&variant.doc, &variant.fields),
                    };
                    let text = format!("- `{}`: {}", variant.name, one_line(doc));
                    write!(page, "\n{}", wrapped(&text, "  ")).unwrap();
                    for field in fields {
                        let (name, item) = of.unwrap_or((name, item));
                        let default = default_of(sources, name, item, field);
                        let kind = kind_of(sources, &field.kind);
                        let text = format!("  - `{}` ({kind}; {default}): {}", field.name, one_line(&field.doc));
                        write!(page, "\n{}", wrapped(&text, "    ")).unwrap();
                    }
                }
                page.push('\n');
            }
        }
    }
    page
}

fn table(sources: &Sources, name: &str, item: &Item, fields: &[Field]) -> String {
    let mut text = "\n| setting | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    for field in fields.iter().filter(|field| !field.skipped) {
        let default = default_of(sources, name, item, field);
        let cells = [format!("`{}`", field.name), kind_of(sources, &field.kind), default, one_line(&field.doc)];
        writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    text
}

/// Doc comments as one line of Markdown: links into the source become names.
fn one_line(doc: &str) -> String {
    let mut text = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    while let Some(start) = text.find("[`") {
        let Some(end) = text[start..].find("`]").map(|end| start + end) else { break };
        let name = text[start + 2..end].rsplit("::").next().unwrap_or_default().to_owned();
        let after = match text[end + 2..].strip_prefix('(').and_then(|rest| rest.find(')')) {
            Some(close) => end + 2 + close + 2,
            None => end + 2,
        };
        text.replace_range(start..after, &format!("`{name}`"));
    }
    text
}

/// The same in lines of 120 columns, `indent` before all but the first. Code is not broken.
fn wrapped(text: &str, indent: &str) -> String {
    const WIDTH: usize = 120;
    let (mut pieces, mut code): (Vec<String>, _) = (Vec::new(), false);
    for word in text.split(' ') {
        match pieces.last_mut() {
            Some(piece) if code => {
                piece.push(' ');
                piece.push_str(word);
            }
            _ => pieces.push(word.to_owned()),
        }
        code ^= word.matches('`').count() % 2 == 1;
    }
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + piece.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(&piece);
            }
            Some(_) => lines.push(format!("{indent}{piece}")),
            None => lines.push(piece),
        }
    }
    lines.join("\n")
}

/// A type in words.
fn kind_of(sources: &Sources, kind: &str) -> String {
    let inner = |outer: &str| kind.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return kind_of(sources, inner);
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {}s", kind_of(sources, inner));
    }
    if let Some((inner, count)) = kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.split_once("; ")) {
        return format!("{count} {}s", kind_of(sources, inner));
    }
    match kind {
        "usize" | "u64" | "u32" | "u8" => "whole number".into(),
        "f64" | "f32" => "number".into(),
        "bool" => "true or false".into(),
        "PathBuf" => "path".into(),
        "ShardPaths" => "path or list of paths".into(),
        "String" => "text".into(),
        name => match &sources.item(name).kind {
            Kind::Enum(variants) if sources.item(name).tag.is_none() => {
                variants.iter().map(|variant| format!("`{}`", variant.name)).collect::<Vec<_>>().join(", ")
            }
            _ => "table".into(),
        },
    }
}

/// What a setting is where it is not given.
fn default_of(sources: &Sources, name: &str, item: &Item, field: &Field) -> String {
    if FROM_DATA.iter().any(|(of, fields)| *of == name && fields.contains(&field.name.as_str())) {
        return "from the data".into();
    }
    if let Some((_, constant)) = TRAINING.iter().find(|(of, _)| *of == name)
        && let Some(value) = sources.constant(constant).get(&field.name)
    {
        return format!("`{value}`");
    }
    if (name, field.name.as_str()) == ("TrainConfig", "batch_size") {
        return "32 images, 1024 points".into();
    }
    let own = item.defaults.get(&field.name).map(String::as_str);
    let text = match (&field.default, own) {
        (source::Default::Required, None) if field.kind.starts_with("Option<") => return "none".into(),
        (source::Default::Required, None) => return "required".into(),
        (source::Default::Required, Some(value)) => value.to_owned(),
        (source::Default::Function(function), _) => sources.function(function, &item.file),
        (source::Default::OfType, _) => return of_type(sources, &field.kind),
    };
    match text.trim() {
        "None" => "none".into(),
        "Vec::new()" => "`[]`".into(),
        text if text.contains("::") && !text.contains('(') => {
            format!("`{}`", in_kebab(text.rsplit("::").next().unwrap_or_default()))
        }
        text => format!("`{}`", text.trim_start_matches("vec!")),
    }
}

/// The default of a type.
fn of_type(sources: &Sources, kind: &str) -> String {
    match kind {
        "bool" => "`false`".into(),
        "f64" | "f32" => "`0`".into(),
        kind if kind.starts_with("Option<") => "none".into(),
        kind if kind.starts_with("Vec<") => "`[]`".into(),
        kind if kind.starts_with('u') => "`0`".into(),
        kind => match &sources.item(kind).kind {
            Kind::Enum(variants) => {
                let default = variants.iter().find(|variant| variant.is_default);
                default.map_or("its default".into(), |variant| format!("`{}`", variant.name))
            }
            Kind::Struct(_) => "its defaults".into(),
        },
    }
}
