//! Names of files in several parts, as llama.cpp's gguf-split gives them: `name-00001-of-00003.gguf`.

/// What a part's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What stands before the numbers.
    prefix: String,
    /// Which part, from 1 on.
    pub no: u64,
    /// How many there are.
    pub count: u64,
    /// What stands behind the numbers: `.gguf`.
    suffix: String,
}

impl Place {
    /// The place of a file among parts; `None` for other names.
    pub fn of(file: &str) -> Option<Self> {
        let at = file.len().checked_sub(".gguf".len())?;
        let (name, suffix) = (file.get(..at)?, file.get(at..)?);
        if !suffix.eq_ignore_ascii_case(".gguf") {
            return None;
        }
        let (name, count) = name.rsplit_once("-of-")?;
        let (prefix, no) = name.rsplit_once('-')?;
        let number = |digits: &str| {
            let five = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
            five.then(|| digits.parse::<u64>().ok()).flatten()
        };
        let (no, count) = (number(no)?, number(count)?);
        let inside = (1..=count).contains(&no);
        inside.then(|| Self { prefix: prefix.to_owned(), no, count, suffix: suffix.to_owned() })
    }

    /// Name of a part of the same file, from 1 on.
    pub fn name(&self, no: u64) -> String {
        format!("{}-{no:05}-of-{:05}{}", self.prefix, self.count, self.suffix)
    }

    /// Whether both are parts of one file.
    pub fn is_with(&self, other: &Self) -> bool {
        (&self.prefix, self.count, &self.suffix) == (&other.prefix, other.count, &other.suffix)
    }
}

/// Whether `other` is a part of the split GGUF file that `file` is a part of.
pub fn is_part_of(other: &str, file: &str) -> bool {
    Place::of(file).is_some_and(|place| Place::of(other).is_some_and(|other| place.is_with(&other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let place = Place::of("a-b-00002-of-00010.gguf").expect("a part");
        assert_eq!((place.no, place.count, place.name(10).as_str()), (2, 10, "a-b-00010-of-00010.gguf"));
        for other in [
            "a.gguf",
            "a-1-of-3.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-00001-of-00003.bin",
            "-of-.gguf",
            "gguf",
            "ü.gguf",
            "a-+0001-of-00003.gguf",
        ] {
            assert_eq!(Place::of(other), None, "{other}");
        }
        assert!(is_part_of("m-00002-of-00003.GGUF", "m-00001-of-00003.GGUF"));
        assert!(!is_part_of("n-00002-of-00003.gguf", "m-00001-of-00003.gguf"));
        assert!(!is_part_of("m.gguf", "m.gguf"));
    }
}
