//! What a target reads: files of a checkpoint.

/// Bytes of an input at most.
pub const MAX_BYTES: usize = 48 << 10;

/// Begins a file within a bundle: the name stands behind it, up to the end of the line.
const MARK: &[u8] = b"\n%%%% ";

/// Files by name, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Name and content.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Files {
    /// Bytes of all files.
    pub fn len(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Content of a file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice())
    }

    /// Reads what [`Files::encode`] wrote. `only` is the name of the file where a target has one: then all bytes are
    /// its content. Else files follow each other, each behind a line `%%%% NAME`.
    pub fn decode(only: Option<&str>, bytes: &[u8]) -> Self {
        if let Some(name) = only {
            return Self { files: vec![(name.to_owned(), bytes.to_vec())] };
        }
        let mut files = Vec::new();
        let text = [b"\n", bytes].concat();
        let starts: Vec<usize> =
            text.windows(MARK.len()).enumerate().filter(|(_, w)| *w == MARK).map(|(i, _)| i).collect();
        for (i, &start) in starts.iter().enumerate() {
            let part = &text[start + MARK.len()..starts.get(i + 1).copied().unwrap_or(text.len())];
            let line = part.iter().position(|&b| b == b'\n').unwrap_or(part.len());
            let name = String::from_utf8_lossy(&part[..line]).into_owned();
            files.push((name, part.get(line + 1..).unwrap_or_default().to_vec()));
        }
        Self { files }
    }

    /// The bytes to be kept in a file.
    pub fn encode(&self, only: Option<&str>) -> Vec<u8> {
        if only.is_some() {
            return self.files.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        }
        let parts = self.files.iter().map(|(name, bytes)| [MARK, name.as_bytes(), b"\n", bytes].concat());
        parts.collect::<Vec<_>>().concat().get(1..).unwrap_or_default().to_vec()
    }

    /// FNV-1a of names and contents.
    pub fn hash(&self) -> u64 {
        hash(&self.encode(None))
    }

    /// Cuts the last files so that the whole is not longer than [`MAX_BYTES`].
    pub fn cut(&mut self) {
        let mut room = MAX_BYTES;
        for (_, bytes) in &mut self.files {
            bytes.truncate(room);
            room -= bytes.len();
        }
    }
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_read_as_they_are_written() {
        let file = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
        for files in [
            vec![],
            vec![file("a.json", b"{}"), file("b", b"")],
            vec![file("a", b"\n\n%%\n"), file("b c", b"\x00\xff\n")],
        ] {
            let input = Files { files };
            assert_eq!(Files::decode(None, &input.encode(None)), input);
        }
        let one = Files::decode(Some("x"), b"\n%%%% y\n");
        assert_eq!(one.encode(Some("x")), b"\n%%%% y\n");
    }

    #[test]
    fn long_inputs_are_cut() {
        let mut input = Files { files: vec![("a".into(), vec![0; MAX_BYTES - 1]), ("b".into(), vec![0; 9])] };
        input.cut();
        assert_eq!((input.len(), input.files[1].1.len()), (MAX_BYTES, 1));
    }
}
