//! Files in several parts. The first has the metadata of the model; each has the number of its tensors' bytes that
//! follow.

use super::{Gguf, field};
use crate::LoadError;
use crate::checkpoint::source::{ByteSource, Place};

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
