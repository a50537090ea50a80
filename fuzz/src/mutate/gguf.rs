//! Changes of a GGUF file that know where its numbers and entries are.

use std::ops::Range;

use crate::Random;

/// Where things are in a file, as far as it can be read.
#[derive(Debug, Default)]
struct Map {
    /// Every number that says a count, length, type, dimension, offset or scalar value.
    numbers: Vec<Range<usize>>,
    /// Texts, without their lengths.
    texts: Vec<Range<usize>>,
    /// Entries of the metadata.
    entries: Vec<Range<usize>>,
    /// Entries of the table of tensors.
    tensors: Vec<Range<usize>>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    map: Map,
}

impl Reader<'_> {
    fn number(&mut self, width: usize) -> Option<u64> {
        let range = self.at..self.at.checked_add(width)?;
        let mut word = [0; 8];
        word.get_mut(..width)?.copy_from_slice(self.bytes.get(range.clone())?);
        self.at = range.end;
        self.map.numbers.push(range);
        Some(u64::from_le_bytes(word))
    }

    fn text(&mut self) -> Option<()> {
        let len = usize::try_from(self.number(8)?).ok()?;
        let range = self.at..self.at.checked_add(len)?;
        self.bytes.get(range.clone())?;
        self.at = range.end;
        self.map.texts.push(range);
        Some(())
    }

    fn value(&mut self, kind: u64, depth: usize) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.number(1).map(drop),
            2 | 3 => self.number(2).map(drop),
            4..=6 => self.number(4).map(drop),
            8 => self.text(),
            9 if depth < 3 => {
                let (kind, count) = (self.number(4)?, self.number(8)?);
                (0..count).try_for_each(|_| self.value(kind, depth + 1))
            }
            10..=12 => self.number(8).map(drop),
            _ => None,
        }
    }

    fn file(&mut self) -> Option<()> {
        self.number(4)?;
        self.number(4)?;
        let (tensors, entries) = (self.number(8)?, self.number(8)?);
        for _ in 0..entries {
            let start = self.at;
            self.text()?;
            let kind = self.number(4)?;
            self.value(kind, 0)?;
            self.map.entries.push(start..self.at);
        }
        for _ in 0..tensors {
            let start = self.at;
            self.text()?;
            let dims = self.number(4)?;
            (0..dims).try_for_each(|_| self.number(8).map(drop))?;
            self.number(4)?;
            self.number(8)?;
            self.map.tensors.push(start..self.at);
        }
        Some(())
    }
}

fn map(bytes: &[u8]) -> Map {
    let mut reader = Reader { bytes, at: 0, map: Map::default() };
    // What can be read of a broken file.
    let _ = reader.file();
    reader.map
}

/// Position of the count of tensors and of the count of metadata.
const COUNTS: [usize; 2] = [8, 16];

/// Adds to a count of the header.
fn add(bytes: &mut [u8], at: usize, more: i64) {
    if let Some(slot) = bytes.get_mut(at..at + 8).and_then(<[u8]>::first_chunk_mut::<8>) {
        *slot = u64::from_le_bytes(*slot).wrapping_add_signed(more).to_le_bytes();
    }
}

/// Changes a number, a text or an entry; false, and nothing done, if none can be found.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, donor: &[u8]) -> bool {
    let map = map(bytes);
    match random.below(8) {
        0..=2 => {
            let Some(range) = random.pick(&map.numbers) else { return false };
            let number = super::number(random).to_le_bytes();
            bytes[range.clone()].copy_from_slice(&number[..range.len()]);
        }
        3 => {
            // A small step, and a float of its own.
            let Some(range) = random.pick(&map.numbers) else { return false };
            if range.len() == 4 && random.one_in(2) {
                let floats = [0.0, -1.0, 1e-30, 3e38, f32::NAN, f32::INFINITY];
                bytes[range.clone()].copy_from_slice(&floats[random.below(floats.len())].to_le_bytes());
            } else {
                let step = if random.one_in(2) { 1 } else { u8::MAX };
                bytes[range.start] = bytes[range.start].wrapping_add(step);
            }
        }
        4 => {
            let Some(range) = random.pick(&map.texts).filter(|r| r.start >= 8) else { return false };
            let mut text = bytes[range.clone()].to_vec();
            super::bytes::mutate(
                random,
                &mut text,
                b"llama.\xe2\x96\x81<0x0A>",
                &["<0x00>", "<s>", "▁", "Ġ"],
            );
            let len = (text.len() as u64).to_le_bytes();
            bytes.splice(range.start - 8..range.end, len.into_iter().chain(text));
        }
        5 | 6 => {
            // An entry goes, comes twice, or comes from elsewhere.
            let table = random.below(2);
            let own = if table == 0 { &map.tensors } else { &map.entries };
            let Some(range) = random.pick(own).cloned() else { return false };
            match random.below(3) {
                0 => {
                    bytes.drain(range);
                    add(bytes, COUNTS[table], -1);
                }
                1 => {
                    let copy = bytes[range.clone()].to_vec();
                    bytes.splice(range.start..range.start, copy);
                    add(bytes, COUNTS[table], 1);
                }
                _ => {
                    let there = self::map(donor);
                    let theirs = if table == 0 { &there.tensors } else { &there.entries };
                    let Some(other) = random.pick(theirs) else { return false };
                    bytes.splice(range.start..range.start, donor[other.clone()].iter().copied());
                    add(bytes, COUNTS[table], 1);
                }
            }
        }
        _ => {
            // Elements of an array: fewer, or some twice.
            let Some(range) = random.pick(&map.entries).cloned() else { return false };
            let inner: Vec<&Range<usize>> =
                map.texts.iter().filter(|t| t.start > range.start + 32 && t.end <= range.end).collect();
            let Some(text) = random.pick(&inner) else { return false };
            let copy = bytes[text.start - 8..text.end].to_vec();
            bytes.splice(text.start - 8..text.start - 8, copy);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let text = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend([1u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
        out.extend([text("a"), 4u32.to_le_bytes().to_vec(), 7u32.to_le_bytes().to_vec()].concat());
        out.extend([text("b"), 9u32.to_le_bytes().to_vec(), 8u32.to_le_bytes().to_vec()].concat());
        out.extend([1u64.to_le_bytes().to_vec(), text("xyz")].concat());
        out.extend([text("w"), 1u32.to_le_bytes().to_vec(), 32u64.to_le_bytes().to_vec()].concat());
        out.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        out
    }

    #[test]
    fn entries_and_numbers_are_found() {
        let bytes = file();
        let map = map(&bytes);
        assert_eq!((map.entries.len(), map.tensors.len(), map.texts.len()), (2, 1, 4));
        assert_eq!(map.tensors[0].end, bytes.len());
        let mut more = bytes.clone();
        add(&mut more, COUNTS[1], -1);
        assert_eq!(more[16..24], 1u64.to_le_bytes());
    }

    #[test]
    fn cut_files_are_changed_without_panic() {
        let whole = file();
        let mut random = Random::new(3);
        for i in 0..20_000 {
            let mut bytes = whole[..i % (whole.len() + 1)].to_vec();
            mutate(&mut random, &mut bytes, &whole);
        }
    }
}
