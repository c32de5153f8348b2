//! Exit codes and error messages, decided in one place: 0 done, 1 failed while running, 2 asked for wrongly, 128 and the signal's number
//! stopped by a signal.

use crate::rank;
use crate::signals::Signal;
use gmflow::FilesError;
use std::io::Write;

/// The end of a command that a signal stopped after it had saved everything; all has been said.
#[derive(Debug)]
pub struct Signalled(pub Signal);

impl std::fmt::Display for Signalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped by {}", self.0.name())
    }
}

impl std::error::Error for Signalled {}

/// A wrong argument, or a combination of arguments that means nothing.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A [`Usage`] error in the form that all messages have: what, what was expected there, what was found.
pub fn usage(field: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> anyhow::Error {
    Usage(format!("{field}: expected {expected}, got {got}")).into()
}

/// Settings of the library that are options by the same name.
const OPTIONS: [&str; 22] = [
    "batch",
    "cfg",
    "ema",
    "fake",
    "features",
    "guidance",
    "guidance_interval",
    "moments_only",
    "nll",
    "num",
    "order",
    "orthogonal",
    "renoise",
    "reweight_by",
    "second_order",
    "solver",
    "spectral",
    "steps",
    "substeps",
    "temperature",
    "unconverted",
    "vae",
];

/// An error of the library, with the options that it is about in the place of the library's settings.
pub fn of_options(error: impl Into<gmflow_eval::Error>) -> anyhow::Error {
    use gmflow_eval::Error as Eval;
    let option =
        |name: &str| if OPTIONS.contains(&name) { format!("--{}", name.replace('_', "-")) } else { name.to_owned() };
    let options = |field: &str| field.split(", ").map(option).collect::<Vec<_>>().join(", ");
    match error.into() {
        Eval::Files(FilesError::Config { field, expected, got })
        | Eval::Gmflow(gmflow::Error::Files(FilesError::Config { field, expected, got })) => {
            usage(&options(&field), expected.replace("moments_only", "--moments-only"), got)
        }
        Eval::Gmflow(gmflow::Error::Memory { field, got, need, there, advice }) => {
            let advice = OPTIONS.iter().fold(advice, |advice, name| {
                let lower = advice.replace(&format!("lower {name}"), &format!("lower {}", option(name)));
                lower.replace(&format!("({name})"), &format!("({})", option(name)))
            });
            gmflow::Error::Memory { field: options(&field), got, need, there, advice }.into()
        }
        other => other.into(),
    }
}

/// Prints the error, if there is one, on one line of stderr and returns the exit code.
pub fn report(result: anyhow::Result<()>) -> u8 {
    let Err(error) = result else { return 0 };
    if reader_left(&error) {
        return 0;
    }
    if let Some(Signalled(signal)) = error.downcast_ref() {
        return signal.exit_code();
    }
    let code = if is_usage(&error) { 2 } else { 1 };
    if rank::is_of_another(&error) {
        // That rank and the first one say it.
        return code;
    }
    // A terminal that is gone takes no message; the exit code still tells.
    let mut stderr = std::io::stderr();
    let _ = match error.downcast_ref() {
        // Each on a line of its own.
        Some(gmflow_train::Error::Several(errors)) => {
            errors.iter().try_for_each(|error| writeln!(stderr, "error: {}{error}", rank::prefix()))
        }
        _ => writeln!(stderr, "error: {}{}", rank::prefix(), one_line(&error)),
    };
    code
}

/// A setting outside its domain counts as usage whether it came from an argument or from a configuration file.
fn is_usage(error: &anyhow::Error) -> bool {
    use gmflow_train::Error as Train;
    error.chain().any(|cause| {
        let files = match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
            (Some(gmflow::Error::Files(error)), ..) | (_, Some(gmflow_data::Error::Files(error)), _) => Some(error),
            (.., Some(error)) => gmflow_eval::Error::files(error),
            _ => cause.downcast_ref().and_then(Train::files),
        };
        cause.is::<Usage>()
            || files.is_some_and(FilesError::is_config)
            || matches!(cause.downcast_ref(), Some(Train::Config { .. } | Train::Several(_) | Train::InData { .. }))
    })
}

/// Whoever read our output closed the pipe (`gmflow info | head`): that is no failure of ours.
fn reader_left(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The error with its causes, on one line.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let lines = cause.to_string();
        let text = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        // Many messages hold their cause, and some what is said before them.
        match parts.last_mut() {
            Some(last) if text.starts_with(&format!("{last}: ")) => *last = text,
            Some(last) if last.ends_with(&text) => {}
            _ => parts.push(text),
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_many_lines_becomes_one() {
        let error = anyhow::anyhow!("TOML parse error\n  |\n3 | x = 1\n\nunknown field");
        assert_eq!(one_line(&error), "TOML parse error; |; 3 | x = 1; unknown field");
    }

    #[test]
    fn what_a_message_holds_is_not_said_again() {
        use anyhow::Context;
        let missing = || gmflow::Error::io("x.png", std::io::ErrorKind::NotFound.into());
        let message = missing().to_string();
        assert_eq!(one_line(&missing().into()), message);
        let nested = Err::<(), _>(missing()).context("x.png").context("cell 3").unwrap_err();
        assert_eq!(one_line(&nested), format!("cell 3: {message}"));
        let apart = Err::<(), _>(missing()).context("eval of y").unwrap_err();
        assert_eq!(one_line(&apart), format!("eval of y: {message}"));
    }

    #[test]
    fn settings_of_the_library_are_named_as_options() {
        let said = |error: gmflow_eval::Error| of_options(error).to_string();
        assert_eq!(
            said(gmflow::Error::config("guidance_interval", "a", "b").into()),
            "--guidance-interval: expected a, got b"
        );
        assert_eq!(
            said(gmflow_eval::Error::config("guidance, cfg", "a", "b")),
            "--guidance, --cfg: expected a, got b"
        );
        assert_eq!(said(gmflow_eval::Error::config("images", "a", "b")), "images: expected a, got b");
        let memory = |field: &str, advice: &str| gmflow::Error::Memory {
            field: field.into(),
            got: "9".into(),
            need: "1 TB".into(),
            there: "1 GB".into(),
            advice: advice.into(),
        };
        let message = said(memory("num", "lower num, or less (moments_only)").into());
        assert!(
            message.starts_with("--num: ") && message.ends_with("; lower --num, or less (--moments-only)"),
            "{message}"
        );
    }

    #[test]
    fn a_setting_outside_its_domain_is_usage_and_a_missing_file_is_not() {
        assert!(is_usage(&gmflow::Error::config("steps", "at least 1", 0).into()));
        assert!(!is_usage(&gmflow::Error::io("x", std::io::ErrorKind::NotFound.into()).into()));
    }
}
