//! A hash of all weights of a checkpoint: pieces of two models never mix.

use girih_model::LoadError;
use girih_model::checkpoint::source::ByteSource;
use girih_model::checkpoint::table::TensorTable;

use super::hash;

/// Bytes that are read at a time.
const CHUNK: u64 = 16 << 20;
/// Hashes that take turns, because a multiplication waits for the one before.
const LANES: usize = 4;

/// Words of 64 bits (little-endian; the last is padded with zeros), dealt to four lanes in turn. A word w turns h into
/// `(h ⊕ w) · P`, folded by `h ⊕ h >> 32`: one-to-one in h and in w, so that two inputs of one length which differ in
/// one word have two hashes. At the end the length and the lanes are hashed by FNV-1a. It tells checkpoints apart; it
/// is no defence against somebody who wants them to be taken for each other.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    lanes: [u64; LANES],
    length: u64,
}

impl Digest {
    /// Adds bytes. Where a call ends counts if it is not at a multiple of 32.
    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let (blocks, rest) = bytes.as_chunks::<{ 8 * LANES }>();
        for block in blocks {
            self.block(block);
        }
        if !rest.is_empty() {
            let mut block = [0; 8 * LANES];
            block[..rest.len()].copy_from_slice(rest);
            self.block(&block);
        }
    }

    fn block(&mut self, block: &[u8; 8 * LANES]) {
        let (words, _) = block.as_chunks();
        for (h, word) in self.lanes.iter_mut().zip(words) {
            *h = (*h ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *h ^= *h >> 32;
        }
    }

    /// 16 hexadecimal digits.
    pub fn finish(&self) -> String {
        let words = self.lanes.iter().chain([&self.length]);
        hash(&words.flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }
}

/// Hash of names, types, shapes and bytes of all tensors, however they are split into files.
pub async fn checkpoint(source: &dyn ByteSource, table: &TensorTable) -> Result<String, LoadError> {
    let mut digest = Digest::default();
    for info in table.iter() {
        digest.add(format!("{} {} {:?}", info.name, info.dtype.name(), info.shape).as_bytes());
        let mut at = info.range.start;
        while at < info.range.end {
            let end = info.range.end.min(at + CHUNK);
            digest.add(&source.read(&info.file, at..end).await?);
            at = end;
        }
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use girih_model::MemorySource;
    use girih_model::checkpoint::table::{StoredType, TensorInfo};

    fn of(bytes: &[u8], file: &str) -> String {
        let shape = vec![bytes.len() as u64];
        let range = 0..bytes.len() as u64;
        let info = TensorInfo { name: "t".into(), dtype: StoredType::U8, shape, file: file.into(), range };
        let table = TensorTable::new(vec![info]).expect("a table");
        let source = MemorySource::new().with(file.to_owned(), bytes.to_vec());
        pollster::block_on(checkpoint(&source, &table)).expect("it is there")
    }

    #[test]
    fn every_byte_counts() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut seen = std::collections::HashSet::from([of(&bytes, "f")]);
        assert_eq!(of(&bytes, "other file"), of(&bytes, "f"));
        for i in 0..bytes.len() {
            let mut other = bytes.clone();
            other[i] ^= 0x80;
            assert!(seen.insert(of(&other, "f")), "byte {i}");
        }
        // A zero more is another tensor, though the last word is padded with zeros.
        assert!(seen.insert(of(&[&bytes[..], &[0]].concat(), "f")));
        let mut swapped = bytes.clone();
        swapped.swap(0, 32);
        assert!(seen.insert(of(&swapped, "f")));
    }
}
