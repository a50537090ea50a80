//! SentencePiece's map of characters: a double-array trie and the texts that it leads to, as `Precompiled` normalizers
//! hold it. What reads it later trusts every index, so each is followed here once.

/// Bytes of a map at most; published ones have 300 KB.
const MAX_BYTES: usize = 4 << 20;

/// Decodes base64 as it must be written: padded, with nothing in the bits behind the end.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let body = text.trim_end_matches('=').as_bytes();
    if bytes.len() - body.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for &b in body {
        bits = bits << 6 | u32::from(digit(b)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
        bits &= (1 << count) - 1;
    }
    (bits == 0).then_some(out)
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}

/// Bytes of the longest text that a character can become.
///
/// # Errors
/// What is wrong: not base64, parts that are not there, a trie that leads out of itself, texts that are no text.
pub(super) fn longest(text: &str) -> Result<usize, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("has {} bytes, must have at most {MAX_BYTES}", text.len()));
    }
    let bytes = base64(text).ok_or("is not base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("is too short")?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > rest.len() || !size.is_multiple_of(4) || size == 0 {
        return Err(format!("has a trie of {size} bytes, must be a multiple of 4 up to {}", rest.len()));
    }
    let (units, texts) = rest.split_at(size);
    let units: Vec<u32> = units.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect();
    let texts = std::str::from_utf8(texts).map_err(|_| "has texts that are not UTF-8")?;
    walk(&units, texts)
}

fn walk(units: &[u32], texts: &str) -> Result<usize, String> {
    let unit =
        |i: usize| units.get(i).copied().ok_or_else(|| format!("leads to unit {i} of {}", units.len()));
    let mut seen = vec![false; units.len().next_multiple_of(256)];
    let mut longest = 0;
    let mut open = vec![offset(unit(0)?)];
    while let Some(base) = open.pop() {
        match seen.get_mut(base) {
            Some(true) => continue,
            Some(seen) => *seen = true,
            None => return Err(format!("leads to unit {base} of {}", units.len())),
        }
        for c in 1..=255u32 {
            let at = base ^ c as usize;
            let here = unit(at)?;
            if label(here) != c {
                continue;
            }
            let next = at ^ offset(here);
            if has_leaf(here) {
                let start = (unit(next)? & !(1 << 31)) as usize;
                let text =
                    texts.get(start..).ok_or_else(|| format!("leads to text {start} of {}", texts.len()))?;
                longest = longest.max(text.find('\0').unwrap_or(text.len()));
            }
            open.push(next);
        }
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_it_must_be() {
        assert_eq!(base64("").as_deref(), Some(&b""[..]));
        assert_eq!(base64("TWFu").as_deref(), Some(&b"Man"[..]));
        assert_eq!(base64("TWE=").as_deref(), Some(&b"Ma"[..]));
        assert_eq!(base64("TQ==").as_deref(), Some(&b"M"[..]));
        for bad in ["T", "TQ=", "TR==", "TW\n=", "====", "T===", "é==="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    /// A trie in which `a` becomes "xyz", and what breaks it.
    #[test]
    fn tries_that_lead_out_of_themselves() {
        let mut units = vec![0u32; 256];
        units[usize::from(b'a')] = u32::from(b'a') | 1 << 8 | 1 << 10; // its leaf is unit `a` ^ 1
        let leaf = usize::from(b'a') ^ 1;
        units[leaf] = 1 << 31 | 2;
        assert_eq!(walk(&units, "q\0xyz\0"), Ok(3));
        assert!(walk(&units, "q").is_err(), "a text that is not there");
        assert!(walk(&units[..200], "q\0xyz\0").is_err(), "units that are not there");
        units[usize::from(b'a')] |= 0x1f_ffff << 10;
        assert!(walk(&units, "q\0xyz\0").is_err(), "an offset out of the trie");
        units[0] = 0x3f_ffff << 10;
        assert!(walk(&units, "q\0xyz\0").is_err(), "a root out of the trie");
        assert!(longest("AAAA").is_err() && longest("AQAAAA==").is_err() && longest("/////w==").is_err());
    }
}
