//! Structs and enums with their doc comments and serde attributes, read from source files in the form that rustfmt gives them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What serde does where a field is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Default {
    Required,
    OfType,
    Function(String),
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub kind: String,
    pub doc: String,
    pub default: Default,
    pub skipped: bool,
}

#[derive(Clone, Debug)]
pub struct Variant {
    pub name: String,
    pub doc: String,
    pub fields: Vec<Field>,
    pub is_default: bool,
    /// The struct with its doc comment and its fields, where it is not here.
    pub of: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub doc: String,
    pub kind: Kind,
    /// The field that tells the variant.
    pub tag: Option<String>,
    /// The fields of its `impl Default`.
    pub defaults: HashMap<String, String>,
    pub file: PathBuf,
}

/// All items by name, and the text of the files.
pub struct Sources {
    items: HashMap<String, Item>,
    texts: Vec<(PathBuf, String)>,
}

/// What stands before an item, a variant or a field.
#[derive(Default, Clone)]
struct Above {
    doc: Vec<String>,
    attributes: Vec<String>,
}

impl Above {
    /// Takes a line in, where it is a doc comment or an attribute.
    fn takes(&mut self, line: &str) -> bool {
        if let Some(doc) = line.strip_prefix("///") {
            self.doc.push(doc.trim().to_owned());
        } else if line.starts_with("#[") {
            self.attributes.push(line.to_owned());
        } else {
            return line.starts_with("//") || line.is_empty();
        }
        true
    }

    fn doc(&self) -> String {
        let end = self.doc.iter().position(|line| line.starts_with('#')).unwrap_or(self.doc.len());
        self.doc[..end].join("\n").trim().to_owned()
    }

    /// The value of `name = "value"` in a serde attribute.
    fn serde(&self, name: &str) -> Option<String> {
        let start = format!("{name} = \"");
        let text = self.attributes.iter().find(|text| text.starts_with("#[serde") && text.contains(&start))?;
        text.split(&start).nth(1)?.split('"').next().map(str::to_owned)
    }

    /// Whether a serde attribute has this word alone.
    fn has(&self, word: &str) -> bool {
        let words = |text: &str| -> Vec<String> {
            let inner = text.trim_start_matches("#[serde(").trim_end_matches(")]");
            inner.split(", ").map(str::to_owned).collect()
        };
        self.attributes
            .iter()
            .filter(|text| text.starts_with("#[serde("))
            .any(|text| words(text).iter().any(|w| w == word))
    }

    fn field(&self, name: &str, kind: &str) -> Field {
        let default = match self.serde("default") {
            Some(function) => Default::Function(function),
            None if self.has("default") => Default::OfType,
            None => Default::Required,
        };
        let name = self.serde("rename").unwrap_or_else(|| name.to_owned());
        Field { name, kind: kind.to_owned(), doc: self.doc(), default, skipped: self.has("skip") }
    }
}

impl Sources {
    pub fn read(files: impl Iterator<Item = PathBuf>) -> Self {
        let mut sources = Self { items: HashMap::new(), texts: Vec::new() };
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            sources.add(&file, &text);
            sources.texts.push((file, text));
        }
        sources
    }

    pub fn item(&self, name: &str) -> &Item {
        self.items.get(name).unwrap_or_else(|| panic!("{name} is in none of the files; add its file"))
    }

    /// The body of a function without arguments, of that file.
    pub fn function(&self, name: &str, file: &Path) -> String {
        let text = &self.texts.iter().find(|(path, _)| path == file).expect("a file that was read").1;
        let start =
            text.find(&format!("fn {name}() ->")).unwrap_or_else(|| panic!("{name} is not in {}", file.display()));
        let body = text[start..].split('{').nth(1).and_then(|rest| rest.split('}').next());
        body.expect("a body").trim().to_owned()
    }

    /// The settings in a constant of TOML text.
    pub fn constant(&self, name: &str) -> BTreeMap<String, String> {
        let start = format!("const {name}: &str = \"");
        let text =
            self.texts.iter().find_map(|(_, text)| text.split(&start).nth(1)).expect("a constant of that name");
        let lines = text.split('"').next().unwrap_or_default().lines();
        lines
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn add(&mut self, file: &Path, text: &str) {
        let mut above = Above::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if above.takes(line) {
                continue;
            }
            let found = std::mem::take(&mut above);
            if line == "solvers! {" {
                self.add_solvers(&mut lines, file);
                continue;
            }
            if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {}")) {
                let kind = Kind::Struct(Vec::new());
                let item = Item { doc: found.doc(), kind, tag: None, defaults: HashMap::new(), file: file.into() };
                self.items.insert(name.to_owned(), item);
                continue;
            }
            let named = |start: &str| line.strip_prefix(start).and_then(|rest| rest.strip_suffix(" {"));
            let (name, kind) = match (named("pub struct "), named("pub enum ")) {
                (Some(name), _) => (name, Kind::Struct(fields(&mut lines, "    pub ", "}"))),
                (_, Some(name)) => (name, Kind::Enum(variants(&mut lines, &found))),
                _ => continue,
            };
            let defaults = defaults(text, name);
            let item = Item { doc: found.doc(), kind, tag: found.serde("tag"), defaults, file: file.into() };
            self.items.insert(name.to_owned(), item);
        }
    }
}

impl Sources {
    /// The list that [`gmflow::solver::SolverConfig`] is made from: lines `file::Type = "name", "a few words";`.
    fn add_solvers<'a>(&mut self, lines: &mut impl Iterator<Item = &'a str>, file: &Path) {
        let of_line = |line: &str| {
            let (path, rest) = line.trim().split_once(" = \"").unwrap_or_else(|| panic!("{line}: not a solver"));
            let name = rest.split('"').next().unwrap_or_default().to_owned();
            let of = path.rsplit("::").next().map(str::to_owned);
            Variant { name, doc: String::new(), fields: Vec::new(), is_default: false, of }
        };
        let variants = lines.take_while(|line| *line != "}").map(of_line).collect();
        let doc = "A solver and its settings.".to_owned();
        let (kind, tag, defaults) = (Kind::Enum(variants), Some("kind".to_owned()), HashMap::new());
        self.items.insert("SolverConfig".to_owned(), Item { doc, kind, tag, defaults, file: file.into() });
    }
}

/// The fields up to the line `end`, each after `start`.
fn fields<'a>(lines: &mut impl Iterator<Item = &'a str>, start: &str, end: &str) -> Vec<Field> {
    let (mut found, mut above) = (Vec::new(), Above::default());
    for line in lines {
        if line == end {
            break;
        }
        if above.takes(line.trim()) {
            continue;
        }
        let above = std::mem::take(&mut above);
        if let Some((name, kind)) =
            line.strip_prefix(start).and_then(|line| line.trim().strip_suffix(',')?.split_once(": "))
        {
            found.push(above.field(name, kind));
        }
    }
    found
}

fn variants<'a>(lines: &mut impl Iterator<Item = &'a str>, of: &Above) -> Vec<Variant> {
    let kebab = of.serde("rename_all").is_some_and(|form| form == "kebab-case");
    let (mut found, mut above) = (Vec::new(), Above::default());
    while let Some(line) = lines.next() {
        if line == "}" {
            break;
        }
        let line = line.trim();
        if above.takes(line) {
            continue;
        }
        let above = std::mem::take(&mut above);
        let name: String = line.chars().take_while(|c| c.is_alphanumeric()).collect();
        let fields = if line.ends_with('{') { fields(lines, "        ", "    },") } else { Vec::new() };
        let is_default = above.attributes.iter().any(|text| text == "#[default]");
        let name = above.serde("rename").unwrap_or_else(|| if kebab { in_kebab(&name) } else { name });
        found.push(Variant { name, doc: above.doc(), fields, is_default, of: None });
    }
    found
}

/// A variant's name in a file.
pub fn in_kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

/// The fields of `impl Default for NAME`, or of the constant in `impl BuiltIn for NAME`.
fn defaults(text: &str, name: &str) -> HashMap<String, String> {
    let body = |of: &str| text.split(&format!("impl {of} for {name} {{")).nth(1);
    let Some(body) = body("Default").or_else(|| body("BuiltIn")) else { return HashMap::new() };
    let body = body.split("\n}\n").next().unwrap_or_default();
    // The first is the function's result, or the constant's value.
    let inner = body.split("Self {").nth(if body.contains("const DEFAULT") { 1 } else { 2 }).unwrap_or_default();
    let inner = inner.split('}').next().unwrap_or_default();
    let fields = inner.split([',', '\n']).filter_map(|part| part.trim().split_once(": "));
    let mut found: HashMap<String, String> =
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // A list holds commas of its own.
    for line in inner.lines() {
        if let Some((name, value)) = line.trim().trim_end_matches(',').split_once(": ")
            && value.contains('[')
        {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}
