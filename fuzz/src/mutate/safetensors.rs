//! Changes of a safetensors file whose header keeps its length.

use crate::Random;

/// Changes the header, or the data; false, and nothing done, if there is no header.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, donor: &[u8], words: &[&str]) -> bool {
    let Some((header, data)) = split(bytes) else { return false };
    let (mut header, mut data) = (header.to_vec(), data.to_vec());
    let (donor_header, donor_data) = split(donor).unwrap_or_default();
    if random.one_in(6) {
        super::bytes::mutate(random, &mut data, donor_data, words);
    } else if !super::json::mutate(random, &mut header, donor_header, words) {
        super::bytes::mutate(random, &mut header, donor_header, words);
    }
    *bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    true
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
}
