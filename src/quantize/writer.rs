//! Weight files, streamed: no file is ever in memory as a whole.

use std::fs::File;
use std::io::{BufWriter, Write};

use girih_model::checkpoint::source::ByteSource;
use girih_model::checkpoint::table::TensorInfo;
use serde_json::{Map, Value, json};

use super::folder::Partial;
use crate::error::Failure;

/// Bytes that are copied at a time.
const CHUNK: u64 = 16 << 20;

/// Where the bytes of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the checkpoint that is quantised.
    Dense,
    /// In the file of a step.
    Part,
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name, type, shape and place.
    pub info: TensorInfo,
    /// What the place is in.
    pub origin: Origin,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.info.range.end - self.info.range.start
    }
}

/// A safetensors header: its length, and the JSON padded to a multiple of 8.
pub fn header(tensors: &Value) -> Vec<u8> {
    let mut json = tensors.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// Splits tensors, in their order, into files of at most `limit` bytes (unless one tensor alone is larger).
fn shards(entries: &[Entry], limit: u64) -> Vec<Vec<&Entry>> {
    let mut shards: Vec<Vec<&Entry>> = vec![Vec::new()];
    let mut size = 0;
    for entry in entries {
        if size + entry.bytes() > limit && size > 0 {
            shards.push(Vec::new());
            size = 0;
        }
        size += entry.bytes();
        if let Some(last) = shards.last_mut() {
            last.push(entry);
        }
    }
    // Wide elements first, so that all are aligned.
    for shard in &mut shards {
        shard.sort_by_key(|e| (std::cmp::Reverse(e.info.dtype.bits()), e.info.name.clone()));
    }
    shards
}

/// Writes `model.safetensors`, or several files and their index, and returns the bytes of all tensors.
pub async fn write(
    partial: &Partial,
    dense: &dyn ByteSource,
    parts: &dyn ByteSource,
    entries: &[Entry],
    limit: u64,
) -> Result<u64, Failure> {
    let shards = shards(entries, limit);
    let total: u64 = entries.iter().map(Entry::bytes).sum();
    let mut index = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let path = partial.path().join(&name);
        let temporary = partial.temporary();
        let file = |source| Failure::File { path: temporary.display().to_string(), source };
        let mut out = BufWriter::new(File::create(&temporary).map_err(file)?);
        let mut tensors = Map::new();
        tensors.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut at = 0;
        for entry in shard {
            let range = [at, at + entry.bytes()];
            at = range[1];
            let info = &entry.info;
            let value = json!({ "dtype": info.dtype.name(), "shape": info.shape, "data_offsets": range });
            tensors.insert(info.name.clone(), value);
            index.insert(info.name.clone(), name.clone().into());
        }
        out.write_all(&header(&Value::Object(tensors))).map_err(file)?;
        for entry in shard {
            let source = if entry.origin == Origin::Part { parts } else { dense };
            let range = entry.info.range.clone();
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + CHUNK);
                out.write_all(&source.read(&entry.info.file, at..end).await?).map_err(file)?;
                at = end;
            }
        }
        let out = out.into_inner().map_err(|e| file(e.into_error()))?;
        out.sync_all().map_err(file)?;
        std::fs::rename(&temporary, &path).map_err(file)?;
    }
    if shards.len() > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": index });
        partial.write_file("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use girih_model::MemorySource;
    use girih_model::checkpoint::table::{StoredType, TensorTable};

    fn entry(name: &str, dtype: StoredType, range: std::ops::Range<u64>, origin: Origin) -> Entry {
        let shape = vec![(range.end - range.start) * 8 / dtype.bits()];
        Entry { info: TensorInfo { name: name.into(), dtype, shape, file: "f".into(), range }, origin }
    }

    #[test]
    fn files_are_written_and_split() {
        let dir = std::env::temp_dir().join(format!("girih-writer-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a folder");
        let dense = MemorySource::new().with("f", (0..64).collect::<Vec<u8>>());
        let parts = MemorySource::new().with("f", (100..164).collect::<Vec<u8>>());
        let entries = [
            entry("a", StoredType::BF16, 2..8, Origin::Dense),
            entry("b", StoredType::U32, 0..8, Origin::Part),
            entry("c", StoredType::F32, 8..24, Origin::Dense),
        ];
        for (limit, files) in [(1000, 1), (14, 2), (1, 3)] {
            let out = dir.join(format!("m{limit}"));
            let partial = Partial::open(&out, &json!({ "girih": "1" }), false).expect("begun");
            let total =
                pollster::block_on(write(&partial, &dense, &parts, &entries, limit)).expect("written");
            assert_eq!(total, 30);
            let source = girih_model::checkpoint::source::DirSource::new(partial.path());
            let table = pollster::block_on(TensorTable::open(&source)).expect("reads");
            let found: std::collections::BTreeSet<&str> = table.iter().map(|t| t.file.as_str()).collect();
            assert_eq!(found.len(), files, "{limit}");
            let bytes = |name: &str| {
                let info = table.get(name).expect("a tensor");
                pollster::block_on(source.read(&info.file, info.range.clone())).expect("bytes")
            };
            assert_eq!(bytes("a"), (2..8).collect::<Vec<u8>>());
            assert_eq!(bytes("b"), (100..108).collect::<Vec<u8>>());
            assert_eq!(bytes("c"), (8..24).collect::<Vec<u8>>());
        }
        let _ = std::fs::remove_dir_all(&dir);
    }
}
