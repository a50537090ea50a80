//! JSON as Python writes it: with the bare tokens `NaN`, `Infinity` and `-Infinity`, which are not JSON but occur
//! in published configurations.

use std::borrow::Cow;

use serde_json::Value;

use crate::LoadError;

/// Parses JSON. Bare `NaN` and infinities become `null`: serde_json has no value for them, and no field that girih
/// reads may hold one.
///
/// # Errors
/// [`LoadError::Json`].
pub fn parse(file: &str, bytes: &[u8]) -> Result<Value, LoadError> {
    let error = |message: String| LoadError::Json { file: file.to_owned(), message };
    let text = std::str::from_utf8(bytes).map_err(|e| error(e.to_string()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(&without_bare_tokens(text)).map_err(|e| error(e.to_string()))
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
                out.push_str("null");
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
        assert_eq!(value, serde_json::json!({"a": [0.0, null, null], "s": "NaN \" Infinity", "n": null}));
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
