//! The book, the README and the changelog: links lead somewhere, commands are those of the program, settings are TOML, lines are short.
//! Rust examples are doctests of the crate in `book`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Columns of a line of prose.
const WIDTH: usize = 120;
/// Pages that a program writes; a line of theirs may be longer.
const WRITTEN_BY_PROGRAMS: &[&str] = &["speed.md", "python-speed.md", "table.md", "best.md"];
/// Commands that are run when they stand in a `sh` block: they take less than a few seconds and need no network.
const CHEAP: &[&str] =
    &["data list", "data make shapes", "info models/mnist", "sample --checkpoint models/mnist", "completions"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Files below a folder with one of the endings.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("a folder").map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, endings, found);
        } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
            found.push(path);
        }
    }
}

/// The pages in Markdown, each with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut paths = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)).to_vec();
    files(&root.join("book/src"), &["md"], &mut paths);
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8"))).collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Lines with their number and the language of the fence they stand in, if they stand in one. Fences themselves are left out.
fn lines(text: &str) -> impl Iterator<Item = (usize, Option<String>, &str)> {
    let mut fence: Option<String> = None;
    text.lines().enumerate().filter_map(move |(number, line)| {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim().to_owned()) };
            return None;
        }
        Some((number + 1, fence.clone(), line))
    })
}

/// The text of a line without what stands in backquotes.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// Where the links and images of a page lead.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, _, line) in lines(text).filter(|(_, fence, _)| fence.is_none()) {
        let line = without_code(line);
        for piece in line.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = lines(text).filter(|(_, fence, line)| fence.is_none() && line.starts_with('#'));
    headings
        .map(|(_, _, line)| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for (number, link) in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.clone() } else { plain(&page.parent().unwrap().join(path)) };
            let leads = target.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)));
            if !leads {
                wrong.push(format!("{}:{number}: {link}", name(&page)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_a_chapter() {
    let source = root().join("book/src");
    let summary = fs::read_to_string(source.join("SUMMARY.md")).expect("the summary");
    let chapters: BTreeSet<PathBuf> = links(&summary).into_iter().map(|(_, link)| source.join(link)).collect();
    let mut paths = Vec::new();
    files(&source, &["md"], &mut paths);
    let left_out = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !["SUMMARY.md", "table.md", "best.md"].contains(&name) && !chapters.contains(*path)
    };
    let missing: Vec<String> = paths.iter().filter(left_out).map(|path| name(path)).collect();
    assert!(missing.is_empty(), "not in book/src/SUMMARY.md: {}", missing.join(", "));
}

/// A command line as a shell reads it, where it has no more than quotes; comments are dropped, and `&&`, `;`, `|` and `>` end it.
fn words(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut word, mut inside, mut quote) = (vec![Vec::new()], String::new(), false, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, inside) = (Some(c), true),
            (None, '#') if !inside => break,
            (None, c) if c.is_whitespace() || "&;|>".contains(c) => {
                if inside {
                    commands.last_mut().unwrap().push(std::mem::take(&mut word));
                }
                inside = false;
                if "&;|>".contains(c) {
                    commands.push(Vec::new());
                }
            }
            (None, c) => {
                word.push(c);
                inside = true;
            }
        }
    }
    if inside {
        commands.last_mut().unwrap().push(word);
    }
    commands
}

/// A line for a shell, and where it stands.
struct Line {
    page: PathBuf,
    number: usize,
    text: String,
    /// Whether it is in a `sh` block.
    block: bool,
}

/// A call of gmflow in a page.
struct Call {
    place: String,
    arguments: Vec<String>,
    block: bool,
}

/// The `sh` blocks and the inline code of the pages, and the comments of presets and plans.
fn shell_lines() -> Vec<Line> {
    let mut found = Vec::new();
    for (page, text) in pages() {
        let mut add = |number, text: &str, block| {
            found.push(Line { page: page.clone(), number, text: text.to_owned(), block });
        };
        for (number, fence, line) in lines(&text) {
            match fence.as_deref() {
                Some("sh") => add(number, line, true),
                None => line.split('`').skip(1).step_by(2).for_each(|code| add(number, code, false)),
                Some(_) => {}
            }
        }
    }
    let mut settings = Vec::new();
    files(&root().join("configs"), &["toml"], &mut settings);
    files(&root().join("book/src"), &["toml"], &mut settings);
    for path in settings {
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (number, line) in text.lines().enumerate() {
            if let Some(comment) = line.strip_prefix("# ") {
                let text = comment.trim_start().to_owned();
                found.push(Line { page: path.clone(), number: number + 1, text, block: false });
            }
        }
    }
    found
}

fn calls() -> Vec<Call> {
    let mut found = Vec::new();
    let mut lines = shell_lines().into_iter();
    while let Some(Line { page, number, mut text, block }) = lines.next() {
        while let Some(start) = text.strip_suffix('\\') {
            text = start.to_owned() + &lines.next().expect("a line after a backslash").text;
        }
        for command in words(&text) {
            if let Some((program, arguments)) = command.split_first()
                && (program == "gmflow" || program.ends_with("/gmflow"))
            {
                let place = format!("{}:{number}", name(&page));
                found.push(Call { place, arguments: arguments.to_vec(), block });
            }
        }
    }
    found
}

/// The arguments without options that take their value from a variable of the shell or a placeholder for one of a few words; `--version`
/// would end the program.
fn checkable(arguments: &[String]) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    for argument in arguments {
        if argument.starts_with('$') || ["NAME", "SIZE", "..."].contains(&argument.as_str()) {
            kept.pop();
        } else if argument != "--version" {
            kept.push(argument);
        }
    }
    kept
}

#[test]
fn every_call_is_one_the_program_takes() {
    let calls = calls();
    assert!(calls.len() > 100, "{} calls", calls.len());
    let mut wrong = Vec::new();
    for Call { place, arguments, .. } in &calls {
        let arguments = checkable(arguments);
        // The arguments before it are parsed and their values checked, and nothing is done.
        let outcome = Command::new(env!("CARGO_BIN_EXE_gmflow")).args(&arguments).arg("--help").output().unwrap();
        if !outcome.status.success() {
            wrong.push(format!(
                "{place}: gmflow {}\n{}",
                arguments.join(" "),
                String::from_utf8_lossy(&outcome.stderr)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg(unix)]
#[test]
fn cheap_calls_succeed() {
    let mut count = 0;
    for Call { place, arguments, .. } in calls().into_iter().filter(|call| call.block) {
        let line = arguments.join(" ");
        let many = arguments.iter().any(|argument| argument.len() > 2 && argument.parse::<u32>().is_ok());
        let elsewhere = arguments.iter().any(|argument| argument == "--device");
        if many || elsewhere || !CHEAP.iter().any(|start| line.starts_with(start)) {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        for shared in ["models", "configs"] {
            std::os::unix::fs::symlink(root().join(shared), folder.path().join(shared)).expect("a link");
        }
        let outcome = Command::new(env!("CARGO_BIN_EXE_gmflow"))
            .args(&arguments)
            .current_dir(folder.path())
            .envs([("HF_HUB_OFFLINE", "1"), ("HF_HOME", "hub")])
            .output()
            .unwrap();
        assert!(outcome.status.success(), "{place}: gmflow {line}\n{}", String::from_utf8_lossy(&outcome.stderr));
        count += 1;
    }
    assert!(count >= 5, "{count} calls");
}

#[test]
fn settings_are_toml() {
    for (page, text) in pages() {
        let mut block = String::new();
        for (number, fence, line) in lines(&(text + "\nend")) {
            if fence.as_deref() == Some("toml") {
                block += line;
                block.push('\n');
            } else {
                let table: Result<toml::Table, _> = block.parse();
                assert!(table.is_ok(), "{}: before line {number}: {}", name(&page), table.unwrap_err());
                block.clear();
            }
        }
    }
}

#[test]
fn the_table_of_solvers_has_all_of_them() {
    let table = fs::read_to_string(root().join("book/src/sampling.md")).expect("the page");
    for (name, ..) in gmflow::solver::SolverConfig::ALL {
        assert!(table.contains(&format!("`{name}`")), "book/src/sampling.md does not name {name}");
    }
}

#[test]
fn prose_is_narrow() {
    let mut wide = Vec::new();
    for (page, text) in pages() {
        if WRITTEN_BY_PROGRAMS.iter().any(|name| page.ends_with(name)) {
            continue;
        }
        for (number, fence, line) in lines(&text) {
            let prose = fence.is_none() && !line.trim_start().starts_with(['|', '#', '<']);
            // A link or a path that is longer than a line cannot be broken.
            if prose && line.chars().count() > WIDTH && line.trim_start().contains(' ') {
                wide.push(format!("{}:{number}", name(&page)));
            }
        }
    }
    assert!(wide.is_empty(), "longer than {WIDTH} columns:\n{}", wide.join("\n"));
}
