//! Floats as they lie in files: 32 bits each, little-endian, one after another.

/// The bytes of `values`.
pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The values in `bytes`, without an incomplete one at the end.
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (whole, _) = bytes.as_chunks::<4>();
    whole.iter().copied().map(f32::from_le_bytes).collect()
}
