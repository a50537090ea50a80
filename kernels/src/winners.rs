//! Variants that were measured to take the least time on a device: what `select` asks before its rule.
//!
//! A winner is the name of a candidate of a kernel, as the kernel lists them for a shape. A name that is not listed,
//! because it comes from elsewhere or what it names has failed its self-test since, counts for nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::choice::Data;

/// Names of winners by [`key`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Winners {
    by_key: BTreeMap<String, String>,
}

/// What a winner is about, as text without spaces: `kernel/data/shape`, `kernel/shape` where there is one reader of data.
pub fn key(kernel: &str, data: Data, shape: &str) -> String {
    match data {
        Data::Plain => format!("{kernel}/{shape}"),
        data => format!("{kernel}/{data}/{shape}"),
    }
}

const HEADER: &str = "girih measured winners: ";

impl Winners {
    /// Whether nothing was measured, or the rules were found best everywhere.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The name of the winner.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.by_key.get(key).map(String::as_str)
    }

    /// Keys and names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_key.iter().map(|(key, name)| (key.as_str(), name.as_str()))
    }

    /// Takes note of what was measured: a winner, or that the rule's choice is the best one.
    pub fn set(&mut self, key: &str, winner: Option<&str>) {
        match winner {
            Some(name) => self.by_key.insert(key.to_owned(), name.to_owned()),
            None => self.by_key.remove(key),
        };
    }

    /// As text, one a line behind their number.
    pub fn write(&self) -> String {
        let mut text = format!("{HEADER}{}\n", self.len());
        for (key, name) in self.iter() {
            let _ = writeln!(text, "{key} {name}");
        }
        text
    }

    /// Those of a text; `None` if it is not exactly what [`Winners::write`] writes.
    pub fn read(text: &str) -> Option<Self> {
        let (_, lines) = text.strip_prefix(HEADER)?.split_once('\n')?;
        let mut winners = Self::default();
        for line in lines.lines() {
            let (key, name) = line.split_once(' ')?;
            winners.set(key, Some(name));
        }
        (winners.write() == text).then_some(winners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::WeightFormat;

    #[test]
    fn winners_are_read_as_they_are_written_and_nothing_else_is() {
        let mut winners = Winners::default();
        assert_eq!(Winners::read(&winners.write()), Some(Winners::default()));
        let f16 = key("gemv", Data::Weights(WeightFormat::F16), "1x4096x4096");
        assert_eq!(f16, "gemv/f16/1x4096x4096");
        winners.set(&f16, Some("subgroup 8x4"));
        winners.set("attention_decode/kv_f32/32/8x128x128", Some("tiles"));
        winners.set("gemm/f32/64x9x9", Some("tile 64x64 by 8x4, split 2"));
        let text = winners.write();
        assert_eq!(Winners::read(&text), Some(winners.clone()));
        for cut in 0..text.len() {
            assert_eq!(Winners::read(&text[..cut]), None, "{cut}");
        }
        for foreign in [text.replace("gemm", "a"), text.replace("8x4", "8x4\n"), text.replace(": 3", ": 2")] {
            assert_eq!(Winners::read(&foreign), None, "{foreign}");
        }
        winners.set(&f16, None);
        assert_eq!((winners.get(&f16), winners.len()), (None, 2));
    }
}
