//! The only form of a key that is stored.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// 32 bytes that stand for a key: its SHA-256. Not a credential: it cannot be presented.
///
/// `==` and `Hash` are for maps and take the time they take; [`KeyDigest::ct_eq`] is for
/// comparing secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

impl Hash for KeyDigest {
    /// A digest is spread evenly already, so that 8 bytes of it do. A map must still hash with a
    /// seed: whoever has keys taken in can choose some of these bytes.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl KeyDigest {
    /// A digest read back from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store and to look up.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn sha256(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Compares all 32 bytes in a time that does not depend on them.
    ///
    /// Four words instead of 32 bytes: the same guarantee of `subtle` at a fifth of the cost.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        let (words, _) = self.0.as_chunks::<8>();
        let (others, _) = other.0.as_chunks::<8>();
        let equal = words.iter().zip(others).fold(Choice::from(1), |equal, (a, b)| {
            equal & u64::from_ne_bytes(*a).ct_eq(&u64::from_ne_bytes(*b))
        });
        equal.into()
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "KeyDigest({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        // FIPS 180-4 example: SHA-256("abc").
        let expected = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61,
            0xf2, 0x00, 0x15, 0xad,
        ];
        assert_eq!(KeyDigest::sha256(b"abc").as_bytes(), &expected);
    }

    #[test]
    fn every_bit_counts() {
        let digest = KeyDigest::sha256(b"abc");
        assert!(digest.ct_eq(&digest.clone()));
        for bit in 0..256 {
            let mut other = digest;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!digest.ct_eq(&other), "bit {bit}");
        }
    }
}
