//! Reading a header from front to back.

use std::collections::{BTreeMap, HashSet};

use super::{Array, Gguf, GgufTensor, MAX_HEADER, MAX_RANK, Value, field};
use crate::LoadError;
use crate::checkpoint::blocks::GgufType;
use crate::checkpoint::source::{BoxFuture, ByteSource};

/// Arrays in arrays allowed.
const MAX_DEPTH: u32 = 4;
/// Elements of an array for which memory is taken before they are read.
const MAX_RESERVED: usize = 1 << 12;
/// Bytes of a text that is none which a message shows.
const SHOWN: usize = 64;
/// Bytes that are read at a time.
const STEP: u64 = 1 << 20;

impl Gguf {
    /// Reads the header of one file.
    pub(super) async fn open_part(source: &dyn ByteSource, file: &str) -> Result<Self, LoadError> {
        let size = source.size(file).await?.ok_or_else(|| LoadError::NoFile { file: file.to_owned() })?;
        let mut r = Reader { source, file, size, buffer: Vec::new(), start: 0, at: 0 };
        let magic = r.bytes(4).await?;
        if magic != b"GGUF" {
            return Err(field(file, "magic", format!("{magic:02x?}"), "the bytes of GGUF"));
        }
        let version = r.u32().await?;
        if !(2..=3).contains(&version) {
            let got = match version.swap_bytes() {
                swapped @ 1..=3 => format!("{swapped}, big-endian"),
                _ => version.to_string(),
            };
            return Err(field(file, "version", got, "2 or 3, little-endian"));
        }
        let tensors = r.u64().await?;
        let entries = r.u64().await?;
        // A name and what must follow it.
        r.holds("number of tensors", tensors, 24)?;
        r.holds("number of metadata entries", entries, 13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = r.string("a metadata key").await?;
            let kind = r.u32().await?;
            let value = r.value(&key, kind, 0).await?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(LoadError::Duplicate { file: file.to_owned(), tensor: key });
            }
        }
        let mut raw = Vec::with_capacity(tensors.min(1 << 12) as usize);
        let mut seen = HashSet::new();
        for _ in 0..tensors {
            let found = r.tensor().await?;
            if !seen.insert(found.0.name.clone()) {
                return Err(LoadError::Duplicate { file: file.to_owned(), tensor: found.0.name });
            }
            raw.push(found);
        }
        let mut found = Self { file: file.to_owned(), version, metadata, tensors: Vec::new() };
        let alignment = found.uint("general.alignment")?.unwrap_or(32);
        if !alignment.is_power_of_two() || !(8..=1 << 20).contains(&alignment) {
            let want = "a power of two from 8 to 1048576";
            return Err(field(file, "general.alignment", alignment.to_string(), want));
        }
        let data = r.position().next_multiple_of(alignment);
        found.tensors = place(file, raw, data, size, alignment)?;
        Ok(found)
    }
}

/// Turns offsets into ranges of the file and checks them against each other.
fn place(
    file: &str,
    raw: Vec<(GgufTensor, u64)>,
    data: u64,
    size: u64,
    alignment: u64,
) -> Result<Vec<GgufTensor>, LoadError> {
    let limit = size.saturating_sub(data);
    let mut tensors = Vec::with_capacity(raw.len());
    for (mut t, offset) in raw {
        if !offset.is_multiple_of(alignment) {
            let want = format!("a multiple of {alignment}");
            return Err(field(file, &format!("offset of {}", t.name), offset.to_string(), &want));
        }
        let bytes = t.range.end;
        let end = offset.checked_add(bytes).filter(|&end| end <= limit).ok_or_else(|| {
            let got = offset.saturating_add(bytes);
            LoadError::OutOfFile { file: file.to_owned(), tensor: t.name.clone(), got, limit }
        })?;
        t.range = data + offset..data + end;
        tensors.push(t);
    }
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    for pair in tensors.windows(2) {
        let [other, t] = pair else { continue };
        if t.range.start < other.range.end {
            let (got, want) = (t.range.start - data, other.range.end - data);
            let (tensor, other) = (t.name.clone(), other.name.clone());
            return Err(LoadError::Overlap { file: file.to_owned(), tensor, other, got, want });
        }
    }
    Ok(tensors)
}

/// Reads a header from front to back.
struct Reader<'a> {
    source: &'a dyn ByteSource,
    file: &'a str,
    size: u64,
    buffer: Vec<u8>,
    /// Place of the buffer in the file.
    start: u64,
    /// Place in the buffer.
    at: usize,
}

impl Reader<'_> {
    fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Whether `count` things of at least `each` bytes can follow; nothing is allocated before that is known.
    fn holds(&self, what: &str, count: u64, each: u64) -> Result<(), LoadError> {
        let left = self.size.min(MAX_HEADER).saturating_sub(self.position());
        if count.checked_mul(each).is_some_and(|bytes| bytes <= left) {
            return Ok(());
        }
        let want = format!("at most {}: {left} bytes are left", left / each.max(1));
        Err(field(self.file, what, count.to_string(), &want))
    }

    async fn bytes(&mut self, n: u64) -> Result<&[u8], LoadError> {
        let at = self.position();
        let want = at.saturating_add(n);
        if want > self.size {
            return Err(LoadError::Truncated { file: self.file.to_owned(), got: self.size, want });
        }
        if want > MAX_HEADER {
            let file = self.file.to_owned();
            return Err(LoadError::HeaderLength { file, got: want, limit: MAX_HEADER });
        }
        if self.at as u64 + n > self.buffer.len() as u64 {
            let end = want.max(at.saturating_add(STEP)).min(self.size);
            self.buffer = self.source.read(self.file, at..end).await?;
            (self.start, self.at) = (at, 0);
        }
        let from = self.at;
        self.at += n as usize;
        self.buffer.get(from..self.at).ok_or_else(|| LoadError::Truncated {
            file: self.file.to_owned(),
            got: at,
            want,
        })
    }

    async fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N as u64).await?);
        Ok(out)
    }

    async fn u32(&mut self) -> Result<u32, LoadError> {
        self.array().await.map(u32::from_le_bytes)
    }

    async fn u64(&mut self) -> Result<u64, LoadError> {
        self.array().await.map(u64::from_le_bytes)
    }

    async fn string(&mut self, what: &str) -> Result<String, LoadError> {
        let len = self.u64().await?;
        self.holds(&format!("length of {what}"), len, 1)?;
        let bytes = self.bytes(len).await?.to_vec();
        String::from_utf8(bytes).map_err(|e| {
            let bytes = e.as_bytes();
            let more = if bytes.len() > SHOWN {
                format!(" and {} more", bytes.len() - SHOWN)
            } else {
                String::new()
            };
            let got = format!("{:02x?}{more}", &bytes[..bytes.len().min(SHOWN)]);
            field(self.file, what, got, "UTF-8")
        })
    }

    async fn value(&mut self, key: &str, kind: u32, depth: u32) -> Result<Value, LoadError> {
        Ok(match kind {
            0 | 2 | 4 | 10 => Value::Uint(self.uint(kind).await?),
            1 | 3 | 5 | 11 => Value::Int(self.int(kind).await?),
            6 | 12 => Value::Float(self.float(kind).await?),
            7 => Value::Bool(self.bool(key).await?),
            8 => Value::String(self.string(key).await?),
            9 => Value::Array(self.elements(key, depth).await?),
            _ => return Err(field(self.file, &format!("type of {key}"), kind.to_string(), "0 to 12")),
        })
    }

    async fn uint(&mut self, kind: u32) -> Result<u64, LoadError> {
        Ok(match kind {
            0 => u64::from(self.array::<1>().await?[0]),
            2 => u64::from(u16::from_le_bytes(self.array().await?)),
            4 => u64::from(self.u32().await?),
            _ => self.u64().await?,
        })
    }

    async fn int(&mut self, kind: u32) -> Result<i64, LoadError> {
        Ok(match kind {
            1 => i64::from(i8::from_le_bytes(self.array().await?)),
            3 => i64::from(i16::from_le_bytes(self.array().await?)),
            5 => i64::from(i32::from_le_bytes(self.array().await?)),
            _ => i64::from_le_bytes(self.array().await?),
        })
    }

    async fn float(&mut self, kind: u32) -> Result<f64, LoadError> {
        Ok(match kind {
            6 => f64::from(f32::from_le_bytes(self.array().await?)),
            _ => f64::from_le_bytes(self.array().await?),
        })
    }

    async fn bool(&mut self, key: &str) -> Result<bool, LoadError> {
        match self.array::<1>().await?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(field(self.file, key, other.to_string(), "0 or 1 (a truth value)")),
        }
    }

    /// In a box, because arrays may hold arrays.
    fn elements<'a>(&'a mut self, key: &'a str, depth: u32) -> BoxFuture<'a, Result<Array, LoadError>> {
        Box::pin(async move {
            let kind = self.u32().await?;
            let count = self.u64().await?;
            let what = format!("number of elements of {key}");
            let each = match kind {
                0 | 1 | 7 => 1,
                2 | 3 => 2,
                4..=6 => 4,
                8 | 10..=12 => 8,
                9 if depth < MAX_DEPTH => 12,
                9 => {
                    let want = format!("arrays in at most {MAX_DEPTH} arrays");
                    return Err(field(self.file, key, "arrays in more".to_owned(), &want));
                }
                _ => {
                    let what = format!("element type of {key}");
                    return Err(field(self.file, &what, kind.to_string(), "0 to 12"));
                }
            };
            self.holds(&what, count, each)?;
            let n = usize::try_from(count).unwrap_or(usize::MAX);
            macro_rules! list {
                ($variant:ident, $next:expr) => {{
                    let mut list = Vec::with_capacity(n.min(MAX_RESERVED));
                    for _ in 0..n {
                        list.push($next);
                    }
                    Array::$variant(list)
                }};
            }
            Ok(match kind {
                0 => Array::Byte(self.bytes(count).await?.to_vec()),
                2 | 4 | 10 => list!(Uint, self.uint(kind).await?),
                1 | 3 | 5 | 11 => list!(Int, self.int(kind).await?),
                6 | 12 => list!(Float, self.float(kind).await?),
                7 => list!(Bool, self.bool(key).await?),
                8 => list!(String, self.string(key).await?),
                _ => list!(Array, self.elements(key, depth + 1).await?),
            })
        })
    }

    /// A tensor with its offset; its range is yet `0..bytes`.
    async fn tensor(&mut self) -> Result<(GgufTensor, u64), LoadError> {
        let name = self.string("a tensor's name").await?;
        let file = self.file.to_owned();
        let rank = self.u32().await? as usize;
        if rank > MAX_RANK {
            return Err(LoadError::Rank { file, tensor: name, got: rank, limit: MAX_RANK });
        }
        let mut shape = Vec::with_capacity(rank);
        for _ in 0..rank {
            shape.push(self.u64().await?);
        }
        let id = self.u32().await?;
        let Some(ty) = GgufType::from_id(id) else {
            let known: Vec<_> = GgufType::ALL.iter().map(|t| format!("{} ({})", t.id(), t.name())).collect();
            let (got, want) = (GgufType::describe(id), known.join(", "));
            return Err(LoadError::UnknownType { file, tensor: name, got, want });
        };
        let innermost = shape.first().copied().unwrap_or(1);
        if !innermost.is_multiple_of(ty.block_elements()) {
            let want = format!("a multiple of {}, the block of {}", ty.block_elements(), ty.name());
            let what = format!("innermost dimension of {name}");
            return Err(field(&file, &what, innermost.to_string(), &want));
        }
        let elements = shape.iter().try_fold(1u64, |product, &d| product.checked_mul(d));
        let Some(bytes) = elements.and_then(|n| ty.bytes_of(n)) else {
            let want = "more than 2^64".to_owned();
            return Err(LoadError::ByteCount { file, tensor: name, got: self.size, want });
        };
        shape.reverse();
        let offset = self.u64().await?;
        Ok((GgufTensor { name, ty, shape, file, range: 0..bytes }, offset))
    }
}
