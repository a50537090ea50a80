//! Safetensors: an 8-byte little-endian header length, a JSON header, the data. Several files are joined by
//! `model.safetensors.index.json`.
//!
//! Only headers are read here; the memory needed is proportional to their size, which is limited.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::LoadError;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::checkpoint::table::{StoredType, TensorInfo, TensorTable};
use crate::error::cut;

/// Longest header allowed, as in the reference implementation.
pub const MAX_HEADER: u64 = 100_000_000;
/// Most dimensions allowed.
pub const MAX_RANK: usize = 16;
const MAX_INDEX: u64 = 64 << 20;
/// Bytes of a file's name at most.
const MAX_NAME: usize = 1024;
/// The index of weights in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Weights in a format that is not read.
const UNREAD: [&str; 4] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth", "tf_model.h5"];

impl TensorTable {
    /// Reads the headers of a checkpoint: of `model.safetensors` or, if there is none, of all files of the index. As in
    /// transformers, an index beside the single file does not count: such are left over.
    ///
    /// # Errors
    /// Every way in which a header or index can be wrong; see [`LoadError`].
    pub async fn open(source: &dyn ByteSource) -> Result<Self, LoadError> {
        if let Some(table) = source.tensors() {
            return Ok(table.clone());
        }
        if source.size(SINGLE).await?.is_some() {
            return Self::open_file(source, SINGLE).await;
        }
        if source.size(INDEX).await?.is_some() {
            return Self::open_index(source, INDEX).await;
        }
        let mut unread = Vec::new();
        for file in UNREAD {
            if source.size(file).await?.is_some() {
                unread.push(file.to_owned());
            }
        }
        Err(LoadError::NoWeights { unread })
    }

    /// Reads the header of one file.
    ///
    /// # Errors
    /// As [`TensorTable::open`].
    pub async fn open_file(source: &dyn ByteSource, file: &str) -> Result<Self, LoadError> {
        let size = source.size(file).await?;
        let size = size.ok_or_else(|| LoadError::NoFile { file: file.to_owned() })?;
        let mut table = Self::default();
        table.add(read_header(source, file, size).await?)?;
        Ok(table)
    }

    /// Reads the headers of all files that an index names. A tensor that lies in several of them is taken from the one
    /// that the index says; tensors that the index does not name are there too.
    ///
    /// # Errors
    /// An index that is broken; files that are missing; tensors that no file holds, or that two do and the index does
    /// not name.
    pub(super) async fn open_index(source: &dyn ByteSource, index: &str) -> Result<Self, LoadError> {
        let bytes = read_whole(source, index, MAX_INDEX).await?;
        let bytes = bytes.ok_or_else(|| LoadError::NoFile { file: index.to_owned() })?;
        let parsed: Index = serde_json::from_slice(&bytes)
            .map_err(|e| LoadError::Json { file: index.to_owned(), message: cut(&e.to_string()) })?;
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for (tensor, file) in parsed.weight_map.0 {
            if places.contains_key(&tensor) {
                return Err(LoadError::Duplicate { file: index.to_owned(), tensor: cut(&tensor) });
            }
            places.insert(tensor, file);
        }
        let files: BTreeSet<&String> = places.values().collect();
        let (mut sizes, mut missing) = (Vec::new(), Vec::new());
        for &file in &files {
            if file.len() > MAX_NAME {
                return Err(LoadError::FileName { file: cut(file) });
            }
            match source.size(file).await? {
                Some(size) => sizes.push((file, size)),
                None => missing.push(file),
            }
        }
        if let Some(&first) = missing.first() {
            let tensor = places.iter().find(|(_, file)| *file == first);
            let tensor = tensor.map(|(tensor, _)| cut(tensor)).unwrap_or_default();
            return Err(LoadError::MissingShard {
                index: index.to_owned(),
                files: missing.into_iter().map(|file| cut(file)).collect(),
                tensor,
            });
        }
        let mut table = Self::default();
        for (file, size) in sizes {
            for info in read_header(source, file, size).await? {
                match (table.tensors.get(&info.name), places.get(&info.name)) {
                    (Some(_), None) => {
                        return Err(LoadError::Duplicate { file: info.file, tensor: cut(&info.name) });
                    }
                    // Another file has it, and the index does not mean this one.
                    (Some(_), Some(place)) if *place != info.file => {}
                    _ => {
                        table.tensors.insert(info.name.clone(), info);
                    }
                }
            }
        }
        let absent = |(tensor, _): &(&String, &String)| !table.tensors.contains_key(*tensor);
        if let Some((_, file)) = places.iter().find(absent) {
            let here = places.iter().filter(absent).filter(|(_, f)| *f == file);
            let tensors = here.map(|(tensor, _)| cut(tensor)).collect();
            return Err(LoadError::AbsentFromShard { index: index.to_owned(), file: file.clone(), tensors });
        }
        Ok(table)
    }
}

async fn read_header(source: &dyn ByteSource, file: &str, size: u64) -> Result<Vec<TensorInfo>, LoadError> {
    if size < 8 {
        return Err(LoadError::Truncated { file: file.to_owned(), got: size, want: 8 });
    }
    let prefix = source.read(file, 0..8).await?;
    let len = prefix.as_slice().try_into().map_or(u64::MAX, u64::from_le_bytes);
    if len > MAX_HEADER {
        return Err(LoadError::HeaderLength { file: file.to_owned(), got: len, limit: MAX_HEADER });
    }
    if len > size - 8 {
        return Err(LoadError::HeaderLength { file: file.to_owned(), got: len, limit: size - 8 });
    }
    let header = source.read(file, 8..8 + len).await?;
    parse_header(file, &header, size - 8 - len)
}

/// Tensors of a header, checked against each other and against the bytes of data that follow it.
///
/// # Errors
/// As [`TensorTable::open`].
pub fn parse_header(file: &str, header: &[u8], data_bytes: u64) -> Result<Vec<TensorInfo>, LoadError> {
    let entries: Entries<RawTensor> = serde_json::from_slice(header)
        .map_err(|e| LoadError::Json { file: file.to_owned(), message: cut(&e.to_string()) })?;
    let data_start = 8 + header.len() as u64;
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(entries.0.len().min(1 << 16));
    let mut seen: HashSet<&str> = HashSet::new();
    for (name, raw) in &entries.0 {
        if name == "__metadata__" {
            continue;
        }
        // Cut for errors: a name may be as long as the header.
        let (file, tensor) = (file.to_owned(), cut(name));
        if !seen.insert(name) {
            return Err(LoadError::Duplicate { file, tensor });
        }
        let RawTensor::Tensor { dtype, shape, rank, offsets: [begin, end] } = raw else {
            let message = format!("{tensor} must have dtype, shape and data_offsets");
            return Err(LoadError::Json { file, message });
        };
        let (begin, end) = (*begin, *end);
        let Some(dtype) = StoredType::from_name(dtype) else {
            let want = StoredType::ALL.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ");
            return Err(LoadError::UnknownType { file, tensor, got: cut(dtype), want });
        };
        if *rank > MAX_RANK {
            return Err(LoadError::Rank { file, tensor, got: *rank, limit: MAX_RANK });
        }
        if begin > end {
            return Err(LoadError::Misordered { file, tensor, begin, end });
        }
        if end > data_bytes {
            return Err(LoadError::OutOfFile { file, tensor, got: end, limit: data_bytes });
        }
        let bits = shape.iter().try_fold(dtype.bits(), |product, &d| product.checked_mul(d));
        match bits {
            Some(bits) if bits % 8 == 0 && bits / 8 == end - begin => {}
            _ => {
                let want = bits.map_or_else(
                    || "more than 2^61".to_owned(),
                    |bits| if bits % 8 == 0 { (bits / 8).to_string() } else { format!("{bits} bits") },
                );
                return Err(LoadError::ByteCount { file, tensor, got: end - begin, want });
            }
        }
        let range = data_start + begin..data_start + end;
        tensors.push(TensorInfo { name: name.clone(), dtype, shape: shape.clone(), file, range });
    }
    drop(seen);
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    let (mut end, mut last) = (data_start, None::<&TensorInfo>);
    for info in &tensors {
        let range = &info.range;
        let file = file.to_owned();
        if range.start < end {
            let other = last.map(|t| cut(&t.name)).unwrap_or_default();
            let (got, want) = (range.start - data_start, end - data_start);
            return Err(LoadError::Overlap { file, tensor: cut(&info.name), other, got, want });
        }
        if range.start > end {
            return Err(LoadError::Hole { file, begin: end - data_start, end: range.start - data_start });
        }
        end = range.end;
        last = Some(info);
    }
    if end - data_start != data_bytes {
        return Err(LoadError::Hole { file: file.to_owned(), begin: end - data_start, end: data_bytes });
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct Index {
    weight_map: Entries<String>,
}

/// The entries of a JSON object in their order, duplicates included.
struct Entries<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect(std::marker::PhantomData))
    }
}

/// A header entry: a tensor, or the free-form metadata.
enum RawTensor {
    Tensor { dtype: String, shape: Vec<u64>, rank: usize, offsets: [u64; 2] },
    Other,
}

impl<'de> Deserialize<'de> for RawTensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawTensor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tensor: dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawTensor, A::Error> {
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(key) = map.next_key::<String>()? {
                    // Metadata may use these names with plain strings: those are no tensor.
                    let twice = match key.as_str() {
                        "dtype" => dtype.replace(map.next_value::<String>()?).is_some(),
                        "shape" => shape.replace(map.next_value::<Field<Dims>>()?).is_some(),
                        "data_offsets" => offsets.replace(map.next_value::<Field<[u64; 2]>>()?).is_some(),
                        _ => map.next_value::<IgnoredAny>().map(|_| false)?,
                    };
                    if twice {
                        return Err(de::Error::custom(format!("{key} occurs twice")));
                    }
                }
                Ok(match (dtype, shape, offsets) {
                    (Some(dtype), Some(Field(Some(dims))), Some(Field(Some(offsets)))) => {
                        RawTensor::Tensor { dtype, shape: dims.kept, rank: dims.rank, offsets }
                    }
                    _ => RawTensor::Other,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A value of the right form, or a plain string (metadata).
struct Field<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers that are not negative")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Field(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(|v| Field(Some(v)))
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// Dimensions, of which only the first few are kept: a header of nothing but ones must not cost eight times its
/// size.
struct Dims {
    kept: Vec<u64>,
    rank: usize,
}

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
                let mut dims = Dims { kept: Vec::new(), rank: 0 };
                while let Some(d) = seq.next_element()? {
                    if dims.rank < MAX_RANK {
                        dims.kept.push(d);
                    }
                    dims.rank += 1;
                }
                Ok(dims)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests;
