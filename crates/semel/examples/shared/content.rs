//! Bytes to send.

/// Bytes in a mebibyte.
pub(crate) const MIB: u64 = 1024 * 1024;

/// One mebibyte without a pattern that a disk could make use of (xorshift64, Marsaglia 2003).
pub(crate) fn block() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(1024 * 1024);
    while bytes.len() < bytes.capacity() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
