//! Files in several parts, as llama.cpp's gguf-split names them: `name-00001-of-00003.gguf`. The first part has the
//! metadata of the model; each has the number of its tensors' bytes that follow.

use super::{Gguf, field};
use crate::LoadError;
use crate::checkpoint::source::ByteSource;

/// What a part's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
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

/// All parts of a file as one, from any of them. The metadata are those of the first part.
pub(super) async fn join(source: &dyn ByteSource, any: Gguf) -> Result<Gguf, LoadError> {
    let count = any.uint("split.count")?.unwrap_or(1);
    let Some(place) = Place::of(&any.file).filter(|place| place.count == count) else {
        let want = format!("a name like model-00001-of-{count:05}.gguf, by which the other parts are found");
        return Err(field(&any.file, "split.count", count.to_string(), &want));
    };
    let mut named = Some(any);
    let mut whole: Option<Gguf> = None;
    for no in 1..=count {
        let file = place.name(no);
        let part = match named.take_if(|named| named.file == file) {
            Some(named) => named,
            None => Gguf::open_part(source, &file).await?,
        };
        for (key, want) in [("split.no", no - 1), ("split.count", count)] {
            if part.uint(key)? != Some(want) {
                return Err(part.bad(key, &format!("{want}, as its name says")));
            }
        }
        let Some(whole) = &mut whole else {
            whole = Some(part);
            continue;
        };
        whole.tensors.extend(part.tensors);
    }
    let Some(whole) = whole else { return Err(LoadError::NoFile { file: place.name(1) }) };
    let mut names: Vec<&str> = whole.tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    if let Some(&[tensor, _]) = names.array_windows().find(|[a, b]| a == b) {
        return Err(LoadError::Duplicate { file: whole.file.clone(), tensor: tensor.to_owned() });
    }
    match whole.uint("split.tensors.count")? {
        Some(want) if want != whole.tensors.len() as u64 => {
            let want = format!("{}, the tensors of all {count} parts", whole.tensors.len());
            Err(whole.bad("split.tensors.count", &want))
        }
        _ => Ok(whole),
    }
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
