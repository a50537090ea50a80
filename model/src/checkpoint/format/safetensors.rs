//! Safetensors: an 8-byte little-endian header length, a JSON header, the data. Several files are joined by
//! `model.safetensors.index.json`.
//!
//! Only headers are read here; the memory needed is proportional to their size, which is limited.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::checkpoint::format::gguf::GgufType;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::error::cut;
use crate::{LoadError, MisShaped};

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

macro_rules! stored_types {
    ($($variant:ident $name:literal $bits:literal,)*) => {
        /// Element type in a file.
        #[allow(non_camel_case_types, missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum StoredType {
            $($variant,)*
            /// Quantised blocks of a GGUF file; never in safetensors.
            Gguf(GgufType),
        }

        impl StoredType {
            /// All types of safetensors.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in the header.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* Self::Gguf(ty) => ty.name() }
            }

            /// Bytes of `elements` elements; `None` where they are no whole number, or too many.
            pub fn bytes_of(self, elements: u64) -> Option<u64> {
                let bits: u64 = match self {
                    $(Self::$variant => $bits,)*
                    Self::Gguf(ty) => return ty.bytes_of(elements),
                };
                elements.checked_mul(bits).filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
            }

            /// Bits of one element; of a block type, rounded up.
            pub fn bits(self) -> u64 {
                match self {
                    $(Self::$variant => $bits,)*
                    Self::Gguf(ty) => (8 * ty.block_bytes()).div_ceil(ty.block_elements()),
                }
            }
        }
    };
}

stored_types! {
    Bool "BOOL" 8, U8 "U8" 8, I8 "I8" 8, F8E4M3 "F8_E4M3" 8, F8E5M2 "F8_E5M2" 8, F8E8M0 "F8_E8M0" 8,
    F4 "F4" 4, F6E2M3 "F6_E2M3" 6, F6E3M2 "F6_E3M2" 6,
    I16 "I16" 16, U16 "U16" 16, F16 "F16" 16, BF16 "BF16" 16,
    I32 "I32" 32, U32 "U32" 32, F32 "F32" 32, I64 "I64" 64, U64 "U64" 64, F64 "F64" 64, C64 "C64" 64,
}

impl StoredType {
    /// The type of a header's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Full name.
    pub name: String,
    /// Element type.
    pub dtype: StoredType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// File.
    pub file: String,
    /// Bytes in that file.
    pub range: Range<u64>,
}

/// All tensors of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct TensorTable {
    tensors: BTreeMap<String, TensorInfo>,
    used_as_a_whole: bool,
}

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

    /// Tensors that are known already.
    ///
    /// # Errors
    /// [`LoadError::Duplicate`].
    pub fn new(tensors: Vec<TensorInfo>) -> Result<Self, LoadError> {
        let mut table = Self::default();
        table.add(tensors)?;
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

    fn add(&mut self, found: Vec<TensorInfo>) -> Result<(), LoadError> {
        for info in found {
            if self.tensors.contains_key(&info.name) {
                return Err(LoadError::Duplicate { file: info.file, tensor: cut(&info.name) });
            }
            self.tensors.insert(info.name.clone(), info);
        }
        Ok(())
    }

    /// The same of a checkpoint with tensors that change the result by being there: none may be left unused.
    #[must_use]
    pub fn used_as_a_whole(self) -> Self {
        Self { used_as_a_whole: true, ..self }
    }

    /// Whether a network must use all tensors.
    pub fn is_used_as_a_whole(&self) -> bool {
        self.used_as_a_whole
    }

    /// A tensor, by full name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|t| t.range.end - t.range.start).fold(0, u64::saturating_add)
    }

    /// Checks names and shapes of everything a model needs at once.
    ///
    /// # Errors
    /// [`LoadError::Tensors`] with all that are missing or of another shape and, to help find the reason, those
    /// not asked for.
    pub fn check(&self, wanted: &[(&str, &[u64])]) -> Result<(), LoadError> {
        let (mut missing, mut mis_shaped) = (Vec::new(), Vec::new());
        for &(name, want) in wanted {
            match self.get(name) {
                None => missing.push(name.to_owned()),
                Some(info) if info.shape != want => mis_shaped.push(MisShaped {
                    tensor: name.to_owned(),
                    got: info.shape.clone(),
                    want: want.to_vec(),
                }),
                Some(_) => {}
            }
        }
        if missing.is_empty() && mis_shaped.is_empty() {
            return Ok(());
        }
        let asked: HashSet<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let unused = self.tensors.keys().filter(|name| !asked.contains(name.as_str())).cloned().collect();
        Err(LoadError::Tensors { missing, mis_shaped, unused })
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
mod tests {
    use super::*;
    use crate::MemorySource;
    use crate::testing::block_on;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 1);
        bytes
    }

    fn open(bytes: Vec<u8>) -> Result<TensorTable, LoadError> {
        block_on(TensorTable::open(&MemorySource::new().with(SINGLE, bytes)))
    }

    const VALID: &str = r#"{"__metadata__":{"format":"pt","shape":"x"},
        "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},
        "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "e":{"dtype":"I64","shape":[0,5],"data_offsets":[20,20]}}"#;

    #[test]
    fn a_valid_file() {
        let table = open(file(VALID, 20)).expect("valid");
        assert_eq!(table.len(), 3);
        let b = table.get("b").expect("b");
        let start = 8 + VALID.len() as u64 + 8;
        assert_eq!(
            (b.dtype, b.shape.as_slice(), b.range.clone()),
            (StoredType::BF16, &[2, 3][..], start..start + 12)
        );
    }

    macro_rules! rejected {
        ($($name:ident: $bytes:expr => $pattern:pat,)*) => {
            $(#[test]
            fn $name() {
                let error = open($bytes).expect_err("must be rejected");
                assert!(matches!(&error, $pattern), "{error:?}");
                assert!(error.to_string().contains(SINGLE), "{error}");
            })*
        };
    }

    fn one(entry: &str, data: usize) -> Vec<u8> {
        file(&format!(r#"{{"t":{entry}}}"#), data)
    }

    rejected! {
        empty_file: vec![] => LoadError::Truncated { got: 0, want: 8, .. },
        half_a_length: vec![1, 0, 0] => LoadError::Truncated { got: 3, .. },
        length_beyond_file: { let mut f = file(VALID, 20); f[1] = 0xff; f } => LoadError::HeaderLength { .. },
        length_absurd: [&[0xff; 8][..], b"{}"].concat() => LoadError::HeaderLength { limit: MAX_HEADER, .. },
        not_json: file("{nonsense", 0) => LoadError::Json { .. },
        not_an_object: file("[1]", 0) => LoadError::Json { .. },
        no_dtype: one(r#"{"shape":[1],"data_offsets":[0,4]}"#, 4) => LoadError::Json { .. },
        negative_dimension: one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, 4) => LoadError::Json { .. },
        three_offsets: one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}"#, 4) => LoadError::Json { .. },
        trailing_text: { let h = "{} x"; file(h, 0) } => LoadError::Json { .. },
        data_truncated: file(VALID, 19) => LoadError::OutOfFile { got: 20, limit: 19, .. },
        data_too_long: file(VALID, 21) => LoadError::Hole { begin: 20, end: 21, .. },
        misordered: one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#, 4) => LoadError::Misordered { .. },
        wrong_bytes: one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#, 4) => LoadError::ByteCount { got: 4, .. },
        overflow: one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#, 4)
            => LoadError::ByteCount { .. },
        unknown_type: one(r#"{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}"#, 4) => LoadError::UnknownType { .. },
        rank: one(r#"{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}"#, 1)
            => LoadError::Rank { got: 17, .. },
        hole: file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#, 3) => LoadError::Hole { begin: 1, end: 2, .. },
        overlap: file(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
            "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#, 3) => LoadError::Overlap { got: 1, want: 2, .. },
        duplicate: file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, 2) => LoadError::Duplicate { .. },
    }

    fn tensors(names: &[&str]) -> Vec<u8> {
        let entries = names.iter().enumerate().map(|(i, name)| {
            format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1)
        });
        file(&format!("{{{}}}", entries.collect::<Vec<_>>().join(",")), names.len())
    }

    /// Files 1 and 2 with these tensors, and this index.
    fn sharded_of(index: &str, files: [&[&str]; 2]) -> Result<TensorTable, LoadError> {
        let source = MemorySource::new()
            .with(INDEX, index.as_bytes().to_vec())
            .with("1", tensors(files[0]))
            .with("2", tensors(files[1]));
        block_on(TensorTable::open(&source))
    }

    fn sharded(index: &str) -> Result<TensorTable, LoadError> {
        sharded_of(index, [&["a"], &["b"]])
    }

    #[test]
    fn shards() {
        let table =
            sharded(r#"{"metadata":{"total_size":2},"weight_map":{"a":"1","b":"2"}}"#).expect("valid");
        assert_eq!(table.get("b").map(|t| t.file.as_str()), Some("2"));
        let error = sharded(r#"{"weight_map":{"a":"1","b":"3","c":"4"}}"#).expect_err("no files 3 and 4");
        assert!(
            matches!(&error, LoadError::MissingShard { files, tensor, .. } if files == &["3", "4"] && tensor == "b")
        );
        let error = sharded(r#"{"weight_map":{"a":"1","b":"2","c":"2"}}"#).expect_err("no c in 2");
        assert!(matches!(&error, LoadError::AbsentFromShard { tensors, .. } if tensors == &["c"]));
        let error = sharded(r#"{"weight_map":{"a":"1","a":"2"}}"#).expect_err("a twice");
        assert!(matches!(error, LoadError::Duplicate { .. }));
        let error = sharded(r#"{"weight_map":["a"]}"#).expect_err("no map");
        assert!(matches!(error, LoadError::Json { .. }));
    }

    #[test]
    fn an_index_that_does_not_fit_its_files() {
        let place = |table: &TensorTable, name: &str| table.get(name).map(|t| t.file.clone());
        // A tensor that the index does not name; one that lies in another file than it says.
        let table = sharded_of(r#"{"weight_map":{"a":"1","b":"2"}}"#, [&["a", "x"], &["b"]]).expect("x too");
        assert_eq!(place(&table, "x").as_deref(), Some("1"));
        let table = sharded_of(r#"{"weight_map":{"a":"2","b":"1"}}"#, [&["a"], &["b"]]).expect("swapped");
        assert_eq!(place(&table, "a").as_deref(), Some("1"));
        // One that lies in both: the index says which, whatever their order.
        for file in ["1", "2"] {
            let index = format!(r#"{{"weight_map":{{"a":"1","b":"2","s":"{file}"}}}}"#);
            let table = sharded_of(&index, [&["a", "s"], &["b", "s"]]).expect("s is where the index says");
            assert_eq!(place(&table, "s").as_deref(), Some(file));
        }
        let error = sharded_of(r#"{"weight_map":{"a":"1","b":"2"}}"#, [&["a", "s"], &["b", "s"]]);
        assert!(matches!(error, Err(LoadError::Duplicate { tensor, .. }) if tensor == "s"));
    }

    #[test]
    fn a_single_file_goes_before_an_index() {
        for index in [&br#"{"weight_map":{"a":"gone"}}"#[..], b"nonsense"] {
            let source = MemorySource::new().with(INDEX, index.to_vec()).with(SINGLE, tensors(&["a"]));
            let table = block_on(TensorTable::open(&source)).expect("the index is left over");
            assert_eq!(table.len(), 1);
        }
    }

    /// Names, types and texts of a header or index may be as long as the file.
    #[test]
    fn errors_are_short_however_long_the_names() {
        let long = "n".repeat(1 << 20);
        let entry = |dtype: &str| format!(r#"{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,1]}}"#);
        for header in [
            format!(r#"{{"{long}":{}}}"#, entry("F32")),
            format!(r#"{{"{long}":{},"{long}":{}}}"#, entry("U8"), entry("U8")),
            format!(r#"{{"a":{}}}"#, entry(&long)),
            format!(r#"{{"a":{{"shape":["{long}"]}}}}"#),
            format!(r#"{{"{long}":3}}"#),
        ] {
            let error = open(file(&header, 1)).expect_err("must be rejected").to_string();
            assert!(error.len() < 2000, "{} bytes", error.len());
        }
        for index in [
            format!(r#"{{"weight_map":"{long}"}}"#),
            format!(r#"{{"weight_map":{{"{long}":"gone"}}}}"#),
            format!(r#"{{"weight_map":{{"a":"{long}"}}}}"#),
            format!(r#"{{"weight_map":{{"{long}":"1"}}}}"#),
        ] {
            let error = sharded(&index).expect_err("must be rejected").to_string();
            assert!(error.len() < 2000, "{} bytes", error.len());
        }
        let table = TensorTable::new(vec![TensorInfo {
            name: long.clone(),
            dtype: StoredType::U8,
            shape: vec![1],
            file: "f".into(),
            range: 0..1,
        }]);
        let error = table.expect("a table").check(&[("x", &[1])]).expect_err("no x").to_string();
        assert!(error.len() < 2000, "{} bytes", error.len());
    }

    #[test]
    fn nothing_there() {
        let error = block_on(TensorTable::open(&MemorySource::new())).expect_err("no file");
        assert!(matches!(&error, LoadError::NoWeights { unread } if unread.is_empty()), "{error}");
        let source = MemorySource::new().with("pytorch_model.bin", vec![0; 8]);
        let error = block_on(TensorTable::open(&source)).expect_err("pickled").to_string();
        assert!(error.contains("pytorch_model.bin is there") && error.contains("safetensors"), "{error}");
    }

    #[test]
    fn everything_that_is_wrong_is_reported_at_once() {
        let table = open(file(VALID, 20)).expect("valid");
        table.check(&[("a", &[2]), ("b", &[2, 3])]).expect("as wanted");
        let error = table.check(&[("x", &[1]), ("y", &[1]), ("b", &[3, 2]), ("a", &[2])]).expect_err("wrong");
        let LoadError::Tensors { missing, mis_shaped, unused } = error else { panic!("{error:?}") };
        assert_eq!((missing, unused), (vec!["x".to_owned(), "y".to_owned()], vec!["e".to_owned()]));
        assert_eq!(mis_shaped[0], MisShaped { tensor: "b".into(), got: vec![2, 3], want: vec![3, 2] });
    }

    /// Flips, deletions and truncations of a valid file: an answer, never a panic, and what is accepted lies in the
    /// file.
    #[test]
    fn mutations() {
        let valid = file(VALID, 20);
        let mut random = crate::run::sampler::Rng::new(7);
        let mut accepted = 0;
        for round in 0..20_000 {
            let mut bytes = valid.clone();
            for _ in 0..=random.next_u64() % 3 {
                let at = (random.next_u64() % bytes.len().max(1) as u64) as usize;
                match random.next_u64() % 5 {
                    0 => bytes.truncate(at),
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    2 => bytes.insert(at, random.next_u64() as u8),
                    3 if at < bytes.len() => bytes[at] = b"0123456789[]{},:\"-eE."[round % 21],
                    _ if at < bytes.len() => bytes[at] ^= 1 << (random.next_u64() % 8),
                    _ => {}
                }
            }
            let size = bytes.len() as u64;
            if let Ok(table) = open(bytes) {
                accepted += 1;
                assert!(table.iter().all(|t| t.range.start <= t.range.end && t.range.end <= size));
            }
        }
        assert!(accepted > 0, "mutations of data bytes are harmless and must be accepted");
    }
}
