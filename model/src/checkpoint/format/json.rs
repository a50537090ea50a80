//! JSON as Python writes it: with the bare tokens `NaN`, `Infinity` and `-Infinity`, which are not JSON but occur
//! in published configurations.

use std::borrow::Cow;
use std::io;

use serde_json::Value;

use crate::LoadError;
use crate::error::{EXCERPT, cut};

/// Parses JSON. Bare `NaN` and infinities become texts of that name: serde_json has no value for them, and no field
/// that girih reads may hold one. A text is refused where a number is wanted, with its name; `null` would pass for an
/// absent field.
///
/// # Errors
/// [`LoadError::Json`].
pub fn parse(file: &str, bytes: &[u8]) -> Result<Value, LoadError> {
    // The parser's message may repeat a text of the file.
    let error = |message: String| LoadError::Json { file: file.to_owned(), message: cut(&message) };
    let text = std::str::from_utf8(bytes).map_err(|e| error(e.to_string()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(&without_bare_tokens(text)).map_err(|e| error(e.to_string()))
}

/// The beginning of a value, as JSON: what an error shows of it. The rest is not formatted, however long it is.
pub fn excerpt(value: &Value) -> String {
    struct Beginning(Vec<u8>);
    impl io::Write for Beginning {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Characters have at most 4 bytes.
            let room = (4 * EXCERPT).saturating_sub(self.0.len());
            if room == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let taken = bytes.len().min(room);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut out = Beginning(Vec::new());
    // Fails where the beginning is full, which is the point.
    let whole = serde_json::to_writer(&mut out, value).is_ok();
    let shown = cut(&String::from_utf8_lossy(&out.0));
    if whole || shown.ends_with("...") { shown } else { shown + "..." }
}

/// As [`excerpt`], of a field that may be absent.
pub fn excerpt_or_absent(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), excerpt)
}

fn without_bare_tokens(text: &str) -> Cow<'_, str> {
    const TOKENS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !TOKENS.iter().any(|token| text.contains(token)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(first) = rest.chars().next() {
        let token = TOKENS.iter().find(|token| !in_string && rest.starts_with(**token));
        let taken = match (token, first) {
            (Some(token), _) => {
                out.push('"');
                out.push_str(token);
                out.push('"');
                rest = &rest[token.len()..];
                continue;
            }
            (None, '\\') if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, '"') => {
                in_string = !in_string;
                1
            }
            _ => first.len_utf8(),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_tokens_are_read_and_strings_left_alone() {
        let value = parse("f", br#"{"a": [0.0, Infinity, -Infinity], "s": "NaN \" Infinity", "n":NaN}"#);
        let value = value.expect("parses");
        assert_eq!(
            value,
            serde_json::json!({"a": [0.0, "Infinity", "-Infinity"], "s": "NaN \" Infinity", "n": "NaN"})
        );
    }

    #[test]
    fn an_excerpt_is_short_however_long_the_value() {
        assert_eq!(excerpt(&serde_json::json!({"a": [1, null, "x"]})), r#"{"a":[1,null,"x"]}"#);
        let long = Value::from("\u{e9}".repeat(5_000_000));
        let shown = excerpt(&long);
        assert_eq!(shown.chars().count(), EXCERPT + 3);
        assert!(shown.starts_with("\"\u{e9}") && shown.ends_with("\u{e9}..."), "{shown}");
        let many = Value::from(vec![0; 1_000_000]);
        assert_eq!(excerpt(&many).len(), EXCERPT + 3);
        let exact = Value::from("x".repeat(EXCERPT - 2));
        assert!(!excerpt(&exact).ends_with("..."));
    }

    #[test]
    fn broken_json_is_an_error() {
        for bad in [&b"{"[..], b"", b"\xff", b"{\"a\": Infinityx}", b"\"\\", b"NaN\\"] {
            assert!(matches!(parse("f", bad), Err(LoadError::Json { .. })), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(parse("f", deep.as_bytes()), Err(LoadError::Json { .. })));
    }
}
