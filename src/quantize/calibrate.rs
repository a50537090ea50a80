//! The text of calibration, and the part of it that is held out.

use std::path::Path;

use girih_model::{EvalOptions, Model, RunError};

use super::Error;
use crate::commands::read_text;
use crate::error::Failure;

/// Prose and stories that are built in, all of them our own.
const BUILT_IN: &str = include_str!("../../assets/calibration.txt");
/// Tokens of a window at most.
const WINDOW: usize = 512;
/// Every so many windows one is held out.
const HOLD_OUT: usize = 4;

/// Token ids in windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// File, or `built-in text`.
    pub name: String,
    /// Windows that the model is calibrated with, each begun by the begin-of-text token if the model has one.
    pub windows: Vec<Vec<u32>>,
    /// Ids of the windows that are held out.
    pub held_out: Vec<u32>,
    /// Tokens of a window, without the begin-of-text token.
    pub window: usize,
    bos: Option<u32>,
}

impl Calibration {
    /// Encodes a file, or the built-in text.
    pub fn load(model: &Model, text: Option<&Path>, max_tokens: usize) -> Result<Self, Failure> {
        let (name, text) = match text {
            Some(path) => (path.display().to_string(), read_text(path)?),
            None => ("built-in text".to_owned(), BUILT_IN.to_owned()),
        };
        let mut ids = model.tokenizer()?.encode(&text, false).map_err(RunError::from)?;
        ids.truncate(max_tokens);
        let bos = model.bos_id();
        let window = WINDOW.min(model.context() as usize).saturating_sub(usize::from(bos.is_some()));
        Ok(Self::split(name, &ids, window, bos)?)
    }

    /// Cuts ids into windows; the last of every four is held out. Short texts are cut into four.
    fn split(name: String, ids: &[u32], window: usize, bos: Option<u32>) -> Result<Self, Error> {
        const LEAST: usize = 4 * HOLD_OUT;
        if ids.len() < LEAST {
            return Err(Error::ShortText { text: name, got: ids.len(), want: LEAST });
        }
        let window = window.min(ids.len() / HOLD_OUT).max(2);
        let (mut windows, mut held_out) = (Vec::new(), Vec::new());
        for (i, ids) in ids.chunks(window).enumerate() {
            if i % HOLD_OUT == HOLD_OUT - 1 {
                held_out.extend_from_slice(ids);
            } else {
                windows.push(bos.iter().chain(ids).copied().collect());
            }
        }
        Ok(Self { name, windows, held_out, window, bos })
    }

    /// Tokens of all windows.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// How the part that is held out is scored.
    pub fn eval_options(&self) -> EvalOptions {
        EvalOptions { window: self.window, bos: self.bos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_what_is_held_out() {
        let ids: Vec<u32> = (10..110).collect();
        let c = Calibration::split("x".into(), &ids, 20, Some(1)).expect("long enough");
        assert_eq!((c.window, c.windows.len(), c.held_out.len()), (20, 4, 20));
        assert_eq!(c.windows[0], std::iter::once(1).chain(10..30).collect::<Vec<u32>>());
        assert_eq!(c.held_out, (70..90).collect::<Vec<u32>>());
        assert_eq!(c.tokens(), 84);
        let short = Calibration::split("x".into(), &ids[..17], 500, None).expect("long enough");
        assert_eq!((short.window, short.windows.len(), short.held_out.len()), (4, 4, 4));
        let error = Calibration::split("x".into(), &ids[..9], 500, None).expect_err("short").to_string();
        assert!(error.contains("9 tokens") && error.contains("16"), "{error}");
    }

    #[test]
    fn the_built_in_text_is_text() {
        assert!(BUILT_IN.len() > 8000 && BUILT_IN.is_ascii());
    }
}
