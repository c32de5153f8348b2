//! From serde's sentences, which speak of Rust, to plain ones.

/// What is expected in place of a list that is too long.
pub(crate) const SHORTER: &str = "a shorter list";

/// What a sentence of serde says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The value has another type or lies outside its domain; the text is what was expected.
    Other(String),
    /// There is no such choice; the choices.
    UnknownChoice(String, Vec<String>),
    /// There is no such field; the fields.
    UnknownField(String, Vec<String>),
    /// The field is missing.
    Missing(String),
    /// The field stands there twice.
    Twice(String),
    /// Something else, as it was said.
    Else(String),
}

/// Reads the first line of what serde says.
pub(crate) fn said(message: &str) -> Said {
    let message = message.trim().lines().next().unwrap_or_default();
    let names: Vec<String> = message.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let (first, rest) = match names.split_first() {
        Some((first, rest)) => (first.clone(), rest.to_vec()),
        None => Default::default(),
    };
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    if message.starts_with("unknown variant") {
        Said::UnknownChoice(first, rest)
    } else if message.starts_with("unknown field") {
        Said::UnknownField(first, rest)
    } else if message.starts_with("missing field") {
        Said::Missing(first)
    } else if message.starts_with("duplicate field") {
        Said::Twice(first)
    } else if let Some(expected) = expected.filter(|_| message.starts_with("invalid ")) {
        Said::Other(expectation(expected))
    } else if message.starts_with("data did not match any variant") || message.starts_with("no variant of enum") {
        Said::Other("one of the forms that the documentation names".into())
    } else {
        Said::Else(message.to_owned())
    }
}

/// What serde expected, without the names of Rust's types. The position that JSON's errors end with is left out.
fn expectation(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or(text).trim();
    let last_word = text.rsplit(' ').next().unwrap_or_default();
    let plain = match text {
        "u8" | "u16" | "u32" | "u64" | "usize" | "u128" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a string" | "string" | "str" | "a borrowed string" | "a character" => "text",
        "path string" => "a path",
        "a sequence" | "sequence" => "a list",
        "a map" | "map" => "a table",
        "option" => "a value",
        "unit" | "null" => "nothing",
        "string or map" => "a name or a table",
        "variant identifier" | "field identifier" | "a variant identifier" => "a name",
        _ if text.starts_with("an array of length") || text.starts_with("a tuple of size") => {
            return format!("a list of {last_word} values");
        }
        // Of a buffered list that is too long.
        _ if text.ends_with("in sequence") => {
            return format!("a list of {} values", text.split(' ').next().unwrap_or_default());
        }
        _ if text.starts_with("fewer elements") => SHORTER,
        _ if text.starts_with("tuple struct") || text.starts_with("tuple variant") => "a list",
        _ if text.starts_with("struct") || text.contains("tagged enum") => "a table",
        _ if text.starts_with("enum") => "a name or a table",
        _ if text.starts_with("unit variant") || text.starts_with("unit struct") => "a name without settings",
        _ if text.starts_with("newtype") => "a value",
        other => other,
    };
    plain.to_owned()
}

/// The choices as a list: "a, b or c".
pub fn choices<T: AsRef<str>>(names: &[T]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => only.as_ref().to_owned(),
        [others @ .., last] => {
            let others: Vec<&str> = others.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", others.join(", "), last.as_ref())
        }
    }
}

/// The name that was probably meant, where one is near enough.
pub fn nearest<'a, T: AsRef<str>>(name: &str, known: &'a [T]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(name);
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&wanted, &plain(known.as_ref())), known.as_ref()))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Whether serde's name of a text, `string "x"`, is that of this one.
pub(crate) fn is_named_text(name: &str, text: &str) -> bool {
    name.strip_prefix("string ").is_some_and(|quoted| quoted == format!("{text:?}"))
}

/// Whether serde's name of a number with a fraction, "floating point `1.0`", is that of this one.
pub(crate) fn is_named_number(name: &str, number: f64) -> bool {
    let named = name.strip_prefix("floating point `").and_then(|rest| rest.strip_suffix('`')?.parse::<f64>().ok());
    named.is_some_and(|named| named == number || (named.is_nan() && number.is_nan()))
}

/// A text from a file, short and on one line, in quotes.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_serde_are_read() {
        let other = |text: &str| Said::Other(text.to_owned());
        for (message, expected) in [
            ("invalid type: string \"3\", expected usize", other("a whole number of at least 0")),
            ("invalid value: integer `-3`, expected u64", other("a whole number of at least 0")),
            ("invalid type: string \", expected x\", expected f64 at line 3 column 7", other("a number")),
            ("invalid length 1, expected an array of length 2", other("a list of 2 values")),
            ("invalid type: map, expected internally tagged enum DatasetConfig", other("a table")),
            ("invalid type: string \"x\", expected struct TrainConfig", other("a table")),
            ("missing field `steps`", Said::Missing("steps".into())),
            ("duplicate field `x` at line 3 column 4", Said::Twice("x".into())),
            (
                "unknown variant `bf`, expected one of `f32`, `bf16`",
                Said::UnknownChoice("bf".into(), vec!["f32".into(), "bf16".into()]),
            ),
            ("unknown field `b`, expected `a`", Said::UnknownField("b".into(), vec!["a".into()])),
            ("something new", Said::Else("something new".into())),
        ] {
            assert_eq!(said(message), expected, "{message}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["batch_size", "micro_batch", "steps"];
        assert_eq!(nearest("batchsize", &known), Some("batch_size"));
        assert_eq!(nearest("Batch-Size", &known), Some("batch_size"));
        assert_eq!(nearest("images", &known), None);
        assert_eq!(choices(&["a", "b", "c"]), "a, b or c");
    }
}
